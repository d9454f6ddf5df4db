"""How long servers ask to wait: in headers, in dates and in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, strategies as st

from repro_rl.policy.transport.waits import asked_wait, duration, retry_after, wait_in_words


def test_retry_after_in_all_its_forms():
    assert retry_after("2.5") == 2.5
    assert retry_after("-3") == 0
    assert retry_after("1m20s") == 80
    soon = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100)))
    assert soon is not None
    assert 90 < soon <= 100
    assert retry_after(format_datetime(datetime.now(UTC) - timedelta(days=1))) == 0
    for nothing in (None, "", "soon", "inf", "nan", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"):
        assert retry_after(nothing) is None


def test_a_wait_in_milliseconds_comes_first():
    assert asked_wait({"retry-after-ms": "800", "retry-after": "7"}) == 0.8
    assert asked_wait({"retry-after-ms": "soon", "retry-after": "7"}) == 7
    assert asked_wait({"retry-after-ms": "inf"}) is None
    assert asked_wait({}) is None


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("648ms", 0.648),
        ("20 ms", 0.02),
        ("500 milliseconds", 0.5),
        ("7.66s", 7.66),
        ("20 seconds", 20),
        ("1m26.5s", 86.5),
        ("6m0s", 360),
        ("2 minutes", 120),
        ("5 min", 300),
        ("1h2m3s", 3723),
        ("1h12m3s", 4323),
        ("2 hours", 7200),
        ("1d", 86_400),
        ("1 minute and 5 seconds", 65),
        ("1 hour, 1 minute, and 1 second", 3661),
        # What is no duration, from where it is none.
        ("20", None),
        ("20 monkeys", None),
        ("9" * 400 + "s", None),
        ("3 minutes and 2 monkeys", 180),
        ("1h5", 3600),
    ],
)
def test_a_wait_in_words(words, seconds):
    expected = None if seconds is None else pytest.approx(seconds)
    assert duration(words) == expected
    for sentence in (
        f"Rate limit reached for gpt-4o: Limit 30000, Used 29800. Please try again in {words}. Visit x.org",
        f"You exceeded your current quota. Please retry in {words}.",
        f"The retry in a moment failed. Please retry after {words.upper()}",
    ):
        assert wait_in_words(sentence) == expected


def test_words_that_ask_for_no_wait():
    for sentence in ("", "Please try again.", "Try again in a while", "It took 20s.", "retry in"):
        assert wait_in_words(sentence) is None


@given(st.text())
def test_any_words_are_a_wait_or_none(text):
    seconds = wait_in_words(f"try again in 1{text}")
    assert seconds is None or 0 <= seconds < float("inf")
