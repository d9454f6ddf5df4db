"""Every metric that a run writes is drawn with a title, a unit and its meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro_rl.report.metrics import ELSEWHERE, HEALTH, OTHER, REWARD
from repro_rl.study.findings import span
from repro_rl.study.numerals import fixed

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def documented() -> set[str]:
    """The names of the tables of metrics: those with a slash, as runs write them."""
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([a-z]+/[a-z_0-9]+)`", cell)}


def test_every_documented_metric_has_a_title() -> None:
    names = documented()
    assert len(names) > 60
    assert names - ELSEWHERE <= {*HEALTH, *REWARD, *OTHER}


def test_every_title_is_of_one_metric() -> None:
    titles = [metric.title for table in (HEALTH, REWARD, OTHER) for metric in table.values()]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (None, 2, False, "–"),
        (-0.004, 2, False, "0.00"),
        (-0.004, 2, True, "+0.00"),
        (-1.26, 1, True, "−1.3"),
        (0.5, 3, True, "+0.500"),
        (12.0, 0, False, "12"),
    ],
)
def test_numbers_as_texts(value: float | None, digits: int, sign: bool, text: str) -> None:
    assert fixed(value, digits, sign=sign) == text


def test_a_number_with_its_interval() -> None:
    assert span({"value": 0.123, "low": -0.0001, "high": 0.2}, 1, 100.0, sign=True) == "+12.3 [+0.0, +20.0]"
    assert span({"value": -0.5, "low": None, "high": 0.1}, 2) == "−0.50"
