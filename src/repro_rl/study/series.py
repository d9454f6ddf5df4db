"""The progress series of one recorded episode: what was reported after each step, beside the true progress.

Works on trajectory records (the dictionaries of ``trajectories/*.jsonl.gz``), so that recorded runs can be
measured again. Progress is 0..1 here. ``P_0 = 0`` before any action, for the truth as well (decision D1).
"Intermediate" steps are 1..T-1: the outcome gives the last one away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from repro_rl.errors import DataError
from repro_rl.files import finite
from repro_rl.study.stats import average_ranks

Record = Mapping[str, Any]
Which = Literal["online", "retrospective", "truth"]
Series = list[float | None]

SERIES: tuple[Which, ...] = ("online", "retrospective", "truth")
MIN_STEPS = 3  # a rank correlation of two points is always +1 or -1


def series_of(record: Record, which: Which) -> Series:
    """The progress after steps 1..T, each 0..1 or None where nothing usable was given. Length T.

    The series:

    - "online": what the policy reported while acting
    - "retrospective": the reflection's P_1..P_T, all None when it was not valid or does not have T values
    - "truth": the environment's own

    Raises DataError for another name.
    """
    steps = record.get("steps") or []
    if which == "online":
        return [_fraction(step.get("online"), 100) for step in steps]
    if which == "truth":
        return [_fraction(step.get("truth"), 1) for step in steps]
    if which == "retrospective":
        values = (record.get("reflection") or {}).get("values")
        if values is None or len(values) != len(steps):
            return [None] * len(steps)
        return [_fraction(value, 100) for value in values]
    raise DataError(f"Progress series {which!r} is unknown; use online, retrospective or truth.")


@dataclass(slots=True)
class EpisodeProgress:
    """One series of one episode of T steps, beside the true progress."""

    won: bool
    series: Series  # [T], 0..1
    truth: Series  # [T], 0..1

    @classmethod
    def of(cls, record: Record, which: Which) -> EpisodeProgress:
        return cls(bool(record.get("won")), series_of(record, which), series_of(record, "truth"))

    def reported(self) -> list[float]:
        """The values that were given, in the order of the steps."""
        return [value for value in self.series if value is not None]

    def pairs(self) -> list[tuple[float, float]]:
        """(reported, true) progress of every step that has both."""
        return _complete(self.series, self.truth)

    def gains(self) -> list[tuple[float, float]]:
        """(reported, true) gain of every step that has both."""
        return _complete(gains_of(self.series), gains_of(self.truth))

    def falls(self) -> list[bool]:
        """Of each adjacent pair with both values: did the series fall?"""
        return [gain < 0 for gain in gains_of(self.series) if gain is not None]

    def intermediate_mean(self, values: Series) -> float | None:
        """Mean of ``values`` over the intermediate steps on which the series has one.

        The truth is averaged over the same steps, so that the two can be compared.
        """
        return _mean([value for value, _ in _complete(values[:-1], self.series[:-1])])


def gains_of(values: Series) -> Series:
    """The gain of each step, [T], from 0 before the first; None where either end is missing."""
    before: Series = [0.0, *values[:-1]]
    # Rounded: .3 - .2 and .2 - .1 must tie in the ranks.
    return [
        None if now is None or then is None else round(now - then, 9)
        for then, now in zip(before, values, strict=True)
    ]


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Rank correlation of (x, y) pairs, ties at their mean rank; None below 3 pairs or without spread."""
    if len(pairs) < MIN_STEPS:
        return None
    data = np.asarray(pairs, dtype=np.float64)  # [n, 2]
    if np.all(data == data[0], axis=0).any():
        return None
    x, y = (average_ranks(column) - (len(pairs) + 1) / 2 for column in data.T)
    return float(np.clip(x @ y / math.sqrt(float(x @ x) * float(y @ y)), -1.0, 1.0))


def by_fraction(
    records: Iterable[Record], which: Which, *, won: bool, points: int = 11
) -> NDArray[np.float64]:
    """Progress at ``points`` equal fractions of each episode, [episodes, points], 0..1, linear between steps.

    Episodes without a value are left out; missing steps are bridged by their neighbours (decision D53).
    """
    grid = np.linspace(0, 1, points)
    rows = []
    for record in records:
        if bool(record.get("won")) != won or record.get("error"):
            continue
        row = at_fractions(series_of(record, which), grid)
        if row is not None:
            rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(len(rows), points)


def at_fractions(series: Series, grid: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """``series`` [T], from 0 at the start, at fractions ``grid`` [n] of the episode; None without values."""
    given = [(t, value) for t, value in enumerate(series, 1) if value is not None]
    if not given:
        return None
    fractions = [0.0, *(t / len(series) for t, _ in given)]
    return np.interp(grid, fractions, [0.0, *(value for _, value in given)])


def _complete(one: Series, other: Series) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]


def _fraction(value: Any, scale: float) -> float | None:
    return float(value) / scale if finite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
