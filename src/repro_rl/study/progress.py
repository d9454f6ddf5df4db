"""How good is a progress series? Self-reported progress against the outcome and against the ground truth.

Works on trajectory records (the dictionaries of ``trajectories/*.jsonl.gz``), so that recorded runs can be
scored again. Progress is 0..1 here and points (0..100) in the results. ``P_0 = 0`` before any action, for the
truth as well (METHOD: our convention). "Intermediate" steps are 1..T-1: the outcome gives the last one away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from repro_rl.errors import DataError

Record = Mapping[str, Any]
Which = Literal["online", "retrospective", "truth"]
Series = list[float | None]
Quality = dict[str, float | int | None]

MIN_STEPS = 3  # a rank correlation of two points is always +1 or -1


def series_of(record: Record, which: Which) -> Series:
    """The progress after steps 1..T, each 0..1 or None where nothing usable was given. Length T.

    "online" is what was said while acting, "retrospective" the reflection's P_1..P_T (all None when it was
    not valid or does not have T values), "truth" the environment's own. Raises DataError for another name.
    """
    steps = record.get("steps") or []
    if which == "online":
        return [_unit(step.get("online"), 100) for step in steps]
    if which == "truth":
        return [_unit(step.get("truth"), 1) for step in steps]
    if which == "retrospective":
        values = (record.get("reflection") or {}).get("values")
        if values is None or len(values) != len(steps):
            return [None] * len(steps)
        return [_unit(value, 100) for value in values]
    raise DataError(f"Progress series {which!r} is unknown; use online, retrospective or truth.")


def progress_quality(records: Iterable[Record], which: Which) -> Quality:
    """Measure one progress series over many episodes. None where undefined, never nan.

    Keys (points are 0..100; "success"/"failure" split the episodes by outcome):
    ``episodes``, ``successes``, ``failures``: without episodes that broke (``error``) or have no step;
    ``covered``, ``covered_*``: share of episodes with at least one value (where it differs between successes
    and failures, the rest rests on a selection); ``step_covered``: share of steps with a value;
    ``discrimination``: mean intermediate progress, successes minus failures, points (METHOD; mean within the
    episode first, then over episodes); ``truth_discrimination``: the same for the truth on the same steps;
    ``leakage``: their difference, progress that knows the outcome rather than the state;
    ``monotonicity``: share of adjacent pairs (P_0 = 0 included) in successes that do not fall;
    ``monotone_episodes``: share of successes without any fall;
    ``decay_failures``: share of failures whose last value is below their maximum;
    ``mae``, ``mae_success``, ``mae_failure``: mean absolute error against the truth over all steps, points;
    ``spearman_*``: rank correlation with the truth within an episode, averaged over the
    ``spearman_*_episodes`` that have at least 3 steps on which both vary;
    ``pooled_spearman_*``: over all steps together (flatters, as it also rewards telling easy from hard);
    ``gain_spearman_*``: of the step gains, all steps together, which is what shaping pays;
    ``final_*``: mean last value, points.
    """
    episodes = [
        EpisodeProgress(record, which)
        for record in records
        if record.get("steps") and not record.get("error")
    ]
    won = [episode for episode in episodes if episode.won]
    lost = [episode for episode in episodes if not episode.won]
    known = sum(len(episode.known) for episode in episodes)
    steps = sum(episode.length for episode in episodes)
    quality: Quality = {
        "episodes": len(episodes),
        "successes": len(won),
        "failures": len(lost),
        "covered": _share([bool(episode.known) for episode in episodes]),
        "step_covered": known / steps if steps else None,
        "discrimination": _difference(
            [episode.middle(episode.series) for episode in won],
            [episode.middle(episode.series) for episode in lost],
        ),
        "truth_discrimination": _difference(
            [episode.middle(episode.truth) for episode in won],
            [episode.middle(episode.truth) for episode in lost],
        ),
    }
    said, true = quality["discrimination"], quality["truth_discrimination"]
    quality["leakage"] = None if said is None or true is None else said - true
    falls = [episode.falls() for episode in won if episode.known]
    quality["monotonicity"] = _share([not fall for pairs in falls for fall in pairs])
    quality["monotone_episodes"] = _share([not any(pairs) for pairs in falls if pairs])
    quality["decay_failures"] = _share([e.known[-1] < max(e.known) for e in lost if e.known])
    quality["mae"] = _points(_mean([error for episode in episodes for error in episode.errors()]))
    for name, part in (("success", won), ("failure", lost)):
        quality[f"covered_{name}"] = _share([bool(episode.known) for episode in part])
        quality[f"mae_{name}"] = _points(_mean([error for episode in part for error in episode.errors()]))
        inner = [value for value in (spearman(episode.pairs()) for episode in part) if value is not None]
        quality[f"spearman_{name}"] = _mean(inner)
        quality[f"spearman_{name}_episodes"] = len(inner)
        quality[f"pooled_spearman_{name}"] = spearman([pair for episode in part for pair in episode.pairs()])
        quality[f"gain_spearman_{name}"] = spearman([pair for episode in part for pair in episode.gains()])
        quality[f"final_{name}"] = _points(_mean([episode.known[-1] for episode in part if episode.known]))
    return quality


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Rank correlation of (x, y) pairs, ties at their mean rank; None below 3 pairs or without spread."""
    if len(pairs) < MIN_STEPS:
        return None
    data = np.asarray(pairs, dtype=np.float64)  # [n, 2]
    if np.all(data == data[0], axis=0).any():
        return None
    x, y = rankdata(data, axis=0).T - (len(pairs) + 1) / 2
    return float(np.clip(x @ y / math.sqrt(float(x @ x) * float(y @ y)), -1.0, 1.0))


def by_fraction(
    records: Iterable[Record], which: Which, *, won: bool, points: int = 11
) -> NDArray[np.float64]:
    """Progress at ``points`` equal fractions of each episode, [episodes, points], 0..1, linear between steps.

    Episodes without a value are left out; missing steps are bridged by their neighbours (our decision).
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
    known = [(t, value) for t, value in enumerate(series, 1) if value is not None]
    if not known:
        return None
    places = [0.0, *(t / len(series) for t, _ in known)]
    return np.interp(grid, places, [0.0, *(value for _, value in known)])


class EpisodeProgress:
    """One record's series beside its truth. ``known`` holds the given values in order."""

    def __init__(self, record: Record, which: Which) -> None:
        self.won = bool(record.get("won"))
        self.series = series_of(record, which)
        self.truth = series_of(record, "truth")
        self.length = len(self.series)
        self.known = [value for value in self.series if value is not None]

    def middle(self, values: Series) -> float | None:
        """Mean over the intermediate steps on which the series has a value: the truth must be comparable."""
        return _mean(
            [
                value
                for value, said in zip(values[:-1], self.series[:-1], strict=True)
                if value is not None and said is not None
            ]
        )

    def pairs(self) -> list[tuple[float, float]]:
        both = zip(self.series, self.truth, strict=True)
        return [(said, true) for said, true in both if said is not None and true is not None]

    def errors(self) -> list[float]:
        return [abs(said - true) for said, true in self.pairs()]

    def falls(self) -> list[bool]:
        """For each adjacent pair with both values known: did it fall?"""
        return [gain < 0 for gain in gains_of(self.series) if gain is not None]

    def gains(self) -> list[tuple[float, float]]:
        both = zip(gains_of(self.series), gains_of(self.truth), strict=True)
        return [(said, true) for said, true in both if said is not None and true is not None]


def gains_of(values: Series) -> Series:
    """The gain of each step, [T], from 0 before the first; None where either end is not known."""
    before: Series = [0.0, *values[:-1]]
    # Rounded: .3 - .2 and .2 - .1 must tie in the ranks.
    return [
        None if now is None or then is None else round(now - then, 9)
        for then, now in zip(before, values, strict=True)
    ]


def _unit(value: Any, scale: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) / scale if math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _points(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _difference(won: Sequence[float | None], lost: Sequence[float | None]) -> float | None:
    high = _mean([value for value in won if value is not None])
    low = _mean([value for value in lost if value is not None])
    return None if high is None or low is None else 100 * (high - low)
