"""How good is a progress series? Reported progress against the outcome and against the truth.

Every measure is a quotient of two sums over episodes, and ``_addends`` is the one definition of these sums.
``progress_quality`` gives the values alone, ``measures`` the same values with cluster bootstrap intervals.
``compare_series`` compares two series on the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from repro_rl.study.recorded import RecordedEpisode
from repro_rl.study.resample import Floats, Resampler, interval, ratio
from repro_rl.study.series import MIN_STEPS, EpisodeProgress, Record, Which, spearman

Quality = dict[str, float | int | None]
Measures = dict[str, dict[str, Any]]  # {measure: {value, low, high, count}}
Sums = dict[str, tuple[list[float], list[float]]]  # {measure: (numerators [E], denominators [E])}

FLAT = 1e-9  # a variance below it is rounding: progress has steps of .01 or so

PARTS = (("success", True), ("failure", False))
# Over all episodes, and over those of one outcome (name_success, name_failure).
OVERALL = ("covered", "step_covered", "monotonicity", "monotone_episodes", "decay_failures", "mae")
BY_OUTCOME = ("covered", "mae", "spearman", "constant", "final")
CONTRASTS = ("discrimination", "truth_discrimination")  # of one outcome, then successes minus failures
# In points, 0..100; the others are shares or correlations.
POINTS = frozenset(
    f"{name}{part}"
    for name in ("mae", "final", *CONTRASTS, "leakage")
    for part in ("", "_success", "_failure")
)


def progress_quality(records: Iterable[Record], which: Which) -> Quality:
    """Measure one progress series over many episodes. None where undefined, never nan.

    Keys (points are 0..100; "success"/"failure" split the episodes by outcome):
    ``episodes``, ``successes``, ``failures``: without episodes that broke (``error``) or have no step;
    ``covered``, ``covered_*``: share of episodes with at least one value (where it differs between successes
    and failures, the rest rests on a selection); ``step_covered``: share of steps with a value;
    ``discrimination``: mean intermediate progress, successes minus failures, points (paper; decision D47;
    mean within the episode first, then over episodes);
    ``truth_discrimination``: the same for the truth on the same steps;
    ``leakage``: their difference, progress that knows the outcome rather than the state;
    ``monotonicity``: share of adjacent pairs (P_0 = 0 included) in successes that do not fall;
    ``monotone_episodes``: share of successes without any fall;
    ``decay_failures``: share of failures whose last value is below their maximum;
    ``mae``, ``mae_success``, ``mae_failure``: mean absolute error against the truth over all steps, points;
    ``spearman_*``: rank correlation with the truth within an episode, averaged over the
    ``spearman_*_episodes`` that have at least 3 steps on which both vary;
    ``pooled_spearman_*``: over all steps together (flatters, as it also rewards telling easy from hard);
    ``gain_spearman_*``: of the step gains, all steps together, which is what shaping pays;
    ``epic``, ``epic_*``: Pearson distance sqrt((1 - r) / 2) to the truth, all steps together: 0 is the truth
    up to scale and offset, 0.71 unrelated, 1 opposite. It is the distance of EPIC (arXiv 2006.13900), by
    which StateFactory (arXiv 2603.09400) measures progress. EPIC's canonicalization is left out, as it would
    remove a potential, and progress is one;
    ``final_*``: mean last value, points.
    """
    rows = [
        EpisodeProgress.of(record, which)
        for record in records
        if record.get("steps") and not record.get("error")
    ]
    sampler = Resampler(range(len(rows)), resamples=0)
    quotients = _quotients(rows, sampler)
    pooled = _pooled_spearman(rows, sampler, "pooled_spearman", EpisodeProgress.pairs)
    gains = _pooled_spearman(rows, sampler, "gain_spearman", EpisodeProgress.gains)
    distances = _pearson_distances(rows, sampler)
    quality: Quality = {
        "episodes": len(rows),
        "successes": sum(row.won for row in rows),
        "failures": sum(not row.won for row in rows),
    }
    for name, measure in {**quotients, **pooled, **gains, **distances}.items():
        if not name.startswith("constant"):
            quality[name] = measure["value"]
    for part, _ in PARTS:
        quality[f"spearman_{part}_episodes"] = quotients[f"spearman_{part}"]["count"]
    return quality


def measures(episodes: Sequence[RecordedEpisode], which: str, sampler: Resampler) -> Measures:
    """{measure: {value, low, high, count}} of one series; None where undefined, {} without episodes.

    Names, values and units as in ``progress_quality``; ``count``: the episodes behind it. In addition
    ``constant_*``: share of the episodes with at least 3 comparable steps on which the series never changes.
    The mean rank correlation leaves those out. No correlation of the truth's gains with themselves, and none
    pooled over the steps of all episodes.
    """
    rows = [episode.series[which] for episode in episodes]
    if not rows:
        return {}
    result = _quotients(rows, sampler)
    if which != "truth":
        result |= _pooled_spearman(rows, sampler, "gain_spearman", EpisodeProgress.gains)
        result |= _pearson_distances(rows, sampler)
    return result


def compare_series(
    episodes: Sequence[RecordedEpisode],
    sampler: Resampler,
    first: str = "online",
    second: str = "retrospective",
) -> Measures:
    """Which series is closer to the truth? Differences ``second - first`` with paired intervals.

    Only steps count on which both series and the truth have a value, and for rank correlations only episodes
    on which both have one. So both sides have the same steps of the same episodes, in every resample.
    ``mae*``: points, below 0 is in favour of ``second``; ``spearman_*``: above 0 is. Each with the ``first``
    and ``second`` values on these steps and ``count``, the episodes behind it. {} without such a step.
    """
    sides = {
        which: _sums([_restricted(e.series[which], e.series[other]) for e in episodes])
        for which, other in ((first, second), (second, first))
    }
    result: Measures = {}
    for name in ("mae", *(f"{kind}_{part}" for kind in ("mae", "spearman") for part, _ in PARTS)):
        shared = np.minimum(sides[first][name][1], sides[second][name][1])  # [E]
        columns = {which: np.where(shared > 0, sums[name][0], 0.0).tolist() for which, sums in sides.items()}
        totals = sampler.totals({**columns, "shared": shared.tolist()})
        if not totals["shared"][0] and name == "mae":
            return {}
        one, other = (ratio(totals[which], totals["shared"]) for which in (first, second))
        scale = _scale(name)
        result[name] = {
            **interval(other - one, scale),
            first: interval(one, scale)["value"],
            second: interval(other, scale)["value"],
            "count": int(np.count_nonzero(shared)),
        }
    return result


def _addends(row: EpisodeProgress) -> dict[str, tuple[float, float]]:
    """{measure: (addend of the numerator, addend of the denominator)} of one episode.

    A mean over episodes has the denominator 1 where the episode counts, a mean over steps their number.
    """
    reported, pairs, falls = row.reported(), row.pairs(), row.falls() if row.won else []
    decays = bool(reported) and reported[-1] < max(reported)
    eligible = len(pairs) >= MIN_STEPS
    constant = eligible and len({value for value, _ in pairs}) == 1
    covered = float(bool(reported)), 1.0
    error = math.fsum(abs(value - true) for value, true in pairs), float(len(pairs))
    part = "success" if row.won else "failure"
    return {
        "covered": covered,
        "step_covered": (float(len(reported)), float(len(row.series))),
        "monotonicity": (float(falls.count(False)), float(len(falls))),
        "monotone_episodes": (float(bool(falls) and not any(falls)), float(bool(falls))),
        "decay_failures": (float(decays and not row.won), float(bool(reported) and not row.won)),
        "mae": error,
        f"covered_{part}": covered,
        f"mae_{part}": error,
        f"spearman_{part}": _one(spearman(pairs)),
        f"constant_{part}": (float(constant), float(eligible)),
        f"final_{part}": _one(reported[-1] if reported else None),
        f"discrimination_{part}": _one(row.intermediate_mean(row.series)),
        f"truth_discrimination_{part}": _one(row.intermediate_mean(row.truth)),
    }


def _one(value: float | None) -> tuple[float, float]:
    """The addends of a mean over the episodes that have a value."""
    return (0.0, 0.0) if value is None else (value, 1.0)


def _sums(rows: Sequence[EpisodeProgress]) -> Sums:
    """The addends of every measure as columns; 0 where an episode has the other outcome."""
    addends = [_addends(row) for row in rows]
    split = [f"{name}_{part}" for name in (*BY_OUTCOME, *CONTRASTS) for part, _ in PARTS]
    return {
        name: (
            [row.get(name, (0.0, 0.0))[0] for row in addends],
            [row.get(name, (0.0, 0.0))[1] for row in addends],
        )
        for name in (*OVERALL, *split)
    }


def _quotients(rows: Sequence[EpisodeProgress], sampler: Resampler) -> Measures:
    """Every measure that is a quotient of sums, with its interval and the number of episodes behind it."""
    sums = _sums(rows)
    totals = sampler.totals(
        {f"{name}/{side}": column for name, pair in sums.items() for side, column in enumerate(pair)}
    )
    quotient = {name: ratio(totals[f"{name}/0"], totals[f"{name}/1"]) for name in sums}
    count = {name: sum(value > 0 for value in below) for name, (_, below) in sums.items()}
    result: Measures = {}

    def add(name: str, values: Floats, episodes: int) -> None:
        result[name] = {**interval(values, _scale(name)), "count": episodes}

    for name in OVERALL[:2]:
        add(name, quotient[name], count[name])
    contrast = {name: quotient[f"{name}_success"] - quotient[f"{name}_failure"] for name in CONTRASTS}
    contrast["leakage"] = contrast["discrimination"] - contrast["truth_discrimination"]
    for name, values in contrast.items():
        counted = "truth_discrimination" if name == "leakage" else name
        add(name, values, sum(count[f"{counted}_{part}"] for part, _ in PARTS))
    for name in OVERALL[2:]:
        add(name, quotient[name], count[name])
    for part, _ in PARTS:
        for name in BY_OUTCOME:
            add(f"{name}_{part}", quotient[f"{name}_{part}"], count[f"{name}_{part}"])
    return result


def _pooled_spearman(
    rows: Sequence[EpisodeProgress],
    sampler: Resampler,
    name: str,
    pairs_of: Callable[[EpisodeProgress], list[tuple[float, float]]],
) -> Measures:
    """Rank correlation over the steps of all episodes of one outcome together."""
    result: Measures = {}
    for part, won in PARTS:
        owned = [(owner, pair) for owner, row in enumerate(rows) if row.won is won for pair in pairs_of(row)]
        values = sampler.spearman([owner for owner, _ in owned], [pair for _, pair in owned])
        result[f"{name}_{part}"] = {**interval(values), "count": len({owner for owner, _ in owned})}
    return result


def _pearson_distances(rows: Sequence[EpisodeProgress], sampler: Resampler) -> Measures:
    """The Pearson distance of the series to the truth: over all episodes, and those of either outcome."""
    result: Measures = {}
    for name, wanted in (("epic", (True, False)), ("epic_success", (True,)), ("epic_failure", (False,))):
        pairs = [row.pairs() if row.won in wanted else [] for row in rows]
        sums = sampler.totals(
            {
                "n": [float(len(own)) for own in pairs],
                "x": [math.fsum(x for x, _ in own) for own in pairs],
                "y": [math.fsum(y for _, y in own) for own in pairs],
                "xx": [math.fsum(x * x for x, _ in own) for own in pairs],
                "yy": [math.fsum(y * y for _, y in own) for own in pairs],
                "xy": [math.fsum(x * y for x, y in own) for own in pairs],
            }
        )
        values = interval(_pearson_distance(sums))
        result[name] = {**values, "count": sum(bool(own) for own in pairs)}
    return result


def _pearson_distance(sums: dict[str, Floats]) -> Floats:
    """sqrt((1 - r) / 2) in every resample; nan below 3 steps or where a side does not vary."""
    n = np.maximum(sums["n"], 1.0)
    xx, yy, xy = (sums[a + b] - sums[a] * sums[b] / n for a, b in ("xx", "yy", "xy"))
    varies = (sums["n"] >= MIN_STEPS) & (xx > FLAT * n) & (yy > FLAT * n)
    r = np.full(len(n), math.nan)
    np.divide(xy, np.sqrt(np.abs(xx * yy)), out=r, where=varies)
    distance: Floats = np.sqrt((1 - np.clip(r, -1.0, 1.0)) / 2)
    return distance


def _restricted(row: EpisodeProgress, other: EpisodeProgress) -> EpisodeProgress:
    """The series on the steps that ``other`` has a value for."""
    both = zip(row.series, other.series, strict=True)
    return EpisodeProgress(row.won, [None if b is None else a for a, b in both], row.truth)


def _scale(name: str) -> float:
    return 100.0 if name in POINTS else 1.0
