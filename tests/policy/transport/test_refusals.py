"""What servers mean by their errors, in their own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from repro_rl.policy.transport.error_body import LONGEST, read_error
from repro_rl.policy.transport.refusals import NeedsStream, PassingError, RefusedAll, RefusedPrompt, refusal
from support import server_words as words
from support.server_words_long import TOO_LONG


def meaning(status: int, body: Any) -> Exception:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return refusal(status, read_error(data))


def named(rows: list[Any]) -> Any:
    return pytest.mark.parametrize("row", rows, ids=[row[0] for row in rows])


@named(TOO_LONG)
def test_a_prompt_that_is_too_long_is_one_prompt(row):
    error = meaning(*row[1:])
    assert isinstance(error, RefusedPrompt), error
    assert error.cause == "too_long"


@named(words.FILTERED)
def test_a_filter_stops_one_prompt(row):
    error = meaning(*row[1:])
    assert isinstance(error, RefusedPrompt), error
    assert error.cause == "filtered"


@named(words.OTHERS_OF_ONE_PROMPT)
def test_other_errors_of_one_prompt(row):
    error = meaning(row[1], row[2])
    assert isinstance(error, RefusedPrompt), error
    assert error.cause == row[3]


@named(words.STOPS)
def test_key_model_and_credit_are_nobodys_prompt(row):
    error = meaning(*row[1:])
    assert isinstance(error, RefusedAll), error
    assert error.certain


@named(words.DOUBTFUL)
def test_words_about_settings_stop_what_has_no_answer_yet(row):
    error = meaning(*row[1:])
    assert isinstance(error, RefusedAll), error
    assert not isinstance(error, NeedsStream)
    assert not error.certain


@named(words.STREAM_ONLY)
def test_a_server_that_only_streams(row):
    assert isinstance(meaning(*row[1:]), NeedsStream)


@named(words.PASSES)
def test_what_passes(row):
    assert isinstance(meaning(*row[1:]), PassingError)


def test_a_server_that_does_not_stream_is_not_one_that_only_streams():
    message = (
        "Unsupported value: 'stream' does not support true with this model. Only the default (false) value"
    )
    error = meaning(400, words.openai(message, "unsupported_value"))
    assert isinstance(error, RefusedAll)
    assert not isinstance(error, NeedsStream)


@pytest.mark.parametrize("rows", [TOO_LONG, words.FILTERED, words.STOPS])
def test_the_same_errors_inside_a_200_mean_the_same(rows):
    """OpenRouter and gateways have sent the status already when the server behind them fails."""
    for name, status, body in rows:
        if isinstance(body, str) or status in (429, 500):
            continue
        inner = body[0] if isinstance(body, list) else body
        error = inner["error"] if isinstance(inner.get("error"), dict) else inner
        inside = refusal(200, read_error(json.dumps({"error": {**error, "status_code": status}}).encode()))
        assert type(inside) is type(meaning(status, body)), name


def test_the_reason_is_whole_and_clean():
    raw = json.dumps({"error": {"message": "Model 'm' supports at most 1 image."}})
    nested = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}
    assert (
        str(meaning(400, nested))
        == "status 400: Provider returned error; Model 'm' supports at most 1 image."
    )
    assert str(meaning(418, "\x1b[2Jteapot\r\n\x07 here")) == "status 418: [2Jteapot here"
    long = str(meaning(400, {"error": "x" * 2_500}))
    assert "x" * LONGEST in long
    assert long.endswith("(500 more characters)")
    page = "<html><head><style>p {}</style><title>502 Bad&nbsp;Gateway</title></head><p>nginx</p></html>"
    assert str(meaning(502, page)) == "status 502: a web page: 502 Bad Gateway nginx"
    assert str(meaning(400, "")) == "status 400: (the server gave no reason)"
    assert (
        str(meaning(400, {"detail": [{"msg": "Field required", "loc": ["body"]}]}))
        == "status 400: Field required"
    )


def test_waits_in_the_body():
    def after(body: Any) -> Any:
        return read_error(json.dumps(body).encode()).after

    assert after({"error": {"details": [{"retryDelay": "38.5s"}]}}) == 38.5
    assert after({"error": {"metadata": {"retry_after_seconds": 3}}}) == 3
    assert after({"error": {"retry_after_ms": 800}}) == 0.8
    for nothing in ({"error": {"retryDelay": "soon"}}, {"retry_after": -1}, {"retry_after": None}, {}):
        assert after(nothing) is None


NAMES = st.sampled_from(["error", "message", "code", "type", "detail", "metadata", "raw"])
LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
INNER = st.lists(LEAF, max_size=2) | st.dictionaries(NAMES, LEAF, max_size=3)
JSON = LEAF | INNER | st.dictionaries(NAMES, LEAF | INNER | st.lists(INNER, max_size=2), max_size=3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(300, 600), JSON.map(json.dumps).map(str.encode) | st.binary(max_size=60))
def test_any_body_has_a_meaning(status, data):
    error = refusal(status, read_error(data))
    assert isinstance(error, PassingError | RefusedPrompt | RefusedAll)
    assert str(error).isprintable()
