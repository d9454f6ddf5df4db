"""What a figure shows: lines, bands and axes, and the palette."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repro_rl.study.stats import column_intervals

# Okabe and Ito (2008): distinct for every common colour blindness. Black and yellow are left out, as they
# cannot be seen on the dark and the light page.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "10 4", "1 3")
WON, LOST = PALETTE[0], PALETTE[1]


@dataclass(slots=True)
class Line:
    """One line. ``x``, ``y``: [n]; ``low``/``high``: [n], a band, or error bars where ``bars``."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = PALETTE[0]
    dash: str = ""  # SVG dash array
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    bars: bool = False


def leaves_out_zero(interval: Sequence[float] | None) -> bool:
    """Whether ``interval`` (low, high) lies on one side of 0.

    One without width does not: that a few seeds have equal values is chance, and no proof of a difference.
    """
    return interval is not None and interval[0] < interval[1] and (interval[0] > 0 or interval[1] < 0)


@dataclass(slots=True, frozen=True)
class Spread:
    """A mean over seeds with its interval, and the value of every seed."""

    mean: float
    interval: Sequence[float] | None  # low and high; None with one seed
    by_seed: Sequence[float]

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return leaves_out_zero(self.interval)


@dataclass(slots=True, frozen=True)
class Ranked:
    """One arm of a ranking: its result, and the reference's minus it, paired by seed."""

    label: str
    result: Spread
    difference: Spread | None  # None for the reference itself


@dataclass(slots=True, frozen=True)
class Axes:
    """Labels of the axes. The x axis starts at 0.

    ``span`` fixes the y axis; without one it includes 0, so that small changes look small.
    """

    x: str
    y: str
    span: tuple[float, float] | None = None


def themed(text: str) -> str:
    """Colours of the palette as the variables that the page sets, brighter on the dark one."""
    for index, color in enumerate(PALETTE):
        text = re.sub(color, f"var(--c{index})", text, flags=re.I)
    return text


def band(label: str, x: Sequence[float], rows: np.ndarray[Any, Any], color: str, dash: str = "") -> Line:
    """The mean of ``rows`` [n, len(x)] with its 95 % t interval, see ``column_intervals``."""
    spans = column_intervals(rows)
    return Line(label, x if len(rows) else [], spans["mean"] or [], color, dash, spans["low"], spans["high"])
