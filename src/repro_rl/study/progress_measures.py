"""The measures of ``progress_quality`` with intervals, and the two series compared on the same episodes.

Values and definitions are those of ``progress_quality`` (a test holds them together); what is added is the
cluster bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from repro_rl.study.judged import Judged
from repro_rl.study.progress import MIN_STEPS, EpisodeProgress, spearman
from repro_rl.study.resample import Floats, Resampler, interval, ratio

PARTS = (("success", True), ("failure", False))
Measures = dict[str, dict[str, Any]]


def measures(episodes: Sequence[Judged], which: str, sampler: Resampler) -> Measures:
    """{measure: {value, low, high, count}} of one series; None where undefined.

    Names and units as in ``progress_quality`` (shares 0..1, correlations, else points); ``count``: the
    episodes behind it. ``constant_*``: share of the episodes with at least 3 comparable steps on which the
    series never changes, and which the mean rank correlation therefore leaves out.
    """
    rows = [episode.series[which] for episode in episodes]
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in _sums(row).items():
            columns.setdefault(name, []).append(value)
    if not rows:
        return {}
    totals = sampler.totals(columns)
    found: dict[str, tuple[Floats, float, str]] = {}

    def add(name: str, above: str, below: str, scale: float = 1.0) -> None:
        found[name] = ratio(totals[above], totals[below]), scale, below

    add("covered", "known", "episodes")
    add("step_covered", "known steps", "steps")
    for name, key in (("discrimination", "middle"), ("truth_discrimination", "true middle")):
        won, lost = (ratio(totals[f"{key} {part}"], totals[f"{key} n {part}"]) for part, _ in PARTS)
        found[name] = won - lost, 100, f"{key} n"
    leak = found["discrimination"][0] - found["truth_discrimination"][0]
    found["leakage"] = leak, 100, "true middle n"
    add("monotonicity", "kept", "pairs")
    add("monotone_episodes", "monotone", "with pairs")
    add("decay_failures", "decayed", "known failure")
    add("mae", "error", "compared", 100)
    for part, _ in PARTS:
        add(f"covered_{part}", f"known {part}", f"episodes {part}")
        add(f"mae_{part}", f"error {part}", f"compared {part}", 100)
        add(f"spearman_{part}", f"rho {part}", f"rho n {part}")
        add(f"constant_{part}", f"constant {part}", f"eligible {part}")
        add(f"final_{part}", f"last {part}", f"known {part}", 100)
    result: Measures = {}
    for name, (values, scale, count) in found.items():
        columns_of = (
            [columns[count]] if count in columns else [columns[f"{count} {part}"] for part, _ in PARTS]
        )
        behind = sum(value > 0 for column in columns_of for value in column)
        result[name] = {**interval(values, scale), "count": behind}
    for part, success in PARTS if which != "truth" else ():  # of the truth with itself: 1
        pairs = [
            (owner, pair) for owner, row in enumerate(rows) if row.won is success for pair in row.gains()
        ]
        values = sampler.spearman([owner for owner, _ in pairs], [pair for _, pair in pairs])
        result[f"gain_spearman_{part}"] = {**interval(values), "count": len({owner for owner, _ in pairs})}
    return result


def compare_series(
    episodes: Sequence[Judged], sampler: Resampler, first: str = "online", second: str = "retrospective"
) -> Measures:
    """Which series is closer to the truth? Differences ``second - first`` with paired intervals.

    Only steps on which both series and the truth are known, and for rank correlations only episodes on which
    both have one: the same steps of the same episodes on both sides, in every resample.
    ``mae*``: points, below 0 is in favour of ``second``; ``spearman_*``: above 0 is. Each with the ``first``
    and ``second`` values on these steps and ``count``, the episodes behind it. {} without such a step.
    """
    columns: dict[str, list[float]] = {}
    for episode in episodes:
        a, b = episode.series[first], episode.series[second]
        steps = [
            (x, y, true)
            for x, y, true in zip(a.series, b.series, a.truth, strict=True)
            if x is not None and y is not None and true is not None
        ]
        sums = {"n": float(len(steps)), first: 0.0, second: 0.0}
        for x, y, true in steps:
            sums[first] += abs(x - true)
            sums[second] += abs(y - true)
        rho = spearman([(x, t) for x, _, t in steps]), spearman([(y, t) for _, y, t in steps])
        known = rho[0] is not None and rho[1] is not None
        for part, won in PARTS:
            mine = episode.won is won
            for name in ("n", first, second):
                sums[f"{name} {part}"] = sums[name] * mine
            sums[f"rho n {part}"] = float(known and mine)
            sums[f"rho {first} {part}"] = (rho[0] or 0.0) * (known and mine)
            sums[f"rho {second} {part}"] = (rho[1] or 0.0) * (known and mine)
        for name, value in sums.items():
            columns.setdefault(name, []).append(value)
    if not sum(columns.get("n", [])):
        return {}
    totals = sampler.totals(columns)
    result: Measures = {}
    for name, of, below, scale in (
        ("mae", "{}", "n", 100.0),
        *((f"mae_{part}", f"{{}} {part}", f"n {part}", 100.0) for part, _ in PARTS),
        *((f"spearman_{part}", f"rho {{}} {part}", f"rho n {part}", 1.0) for part, _ in PARTS),
    ):
        one, other = (ratio(totals[of.format(which)], totals[below]) for which in (first, second))
        result[name] = {
            **interval(other - one, scale),
            first: interval(one, scale)["value"],
            second: interval(other, scale)["value"],
            "count": int(np.count_nonzero(columns[below])),
        }
    return result


def _sums(row: EpisodeProgress) -> dict[str, float]:
    """What one episode adds to every sum; means are within the episode first where the measure says so."""
    falls = row.falls() if row.won else []
    pairs = row.pairs()
    rho = spearman(pairs)
    said, true = row.middle(row.series), row.middle(row.truth)
    known = bool(row.known)
    sums = {
        "episodes": 1.0,
        "steps": float(row.length),
        "known": float(known),
        "known steps": float(len(row.known)),
        "kept": float(falls.count(False)),
        "pairs": float(len(falls)),
        "monotone": float(bool(falls) and not any(falls)),
        "with pairs": float(bool(falls)),
        "decayed": float(known and not row.won and row.known[-1] < max(row.known)),
        "error": sum(row.errors()),
        "compared": float(len(pairs)),
    }
    flat = len(pairs) >= MIN_STEPS and len({value for value, _ in pairs}) == 1
    for part, won in PARTS:
        mine = row.won is won
        for name, value in (
            ("episodes", 1.0),
            ("known", float(known)),
            ("middle", said or 0.0),
            ("middle n", float(said is not None)),
            ("true middle", true or 0.0),
            ("true middle n", float(true is not None)),
            ("error", sums["error"]),
            ("compared", sums["compared"]),
            ("rho", rho or 0.0),
            ("rho n", float(rho is not None)),
            ("constant", float(flat)),
            ("eligible", float(len(pairs) >= MIN_STEPS)),
            ("last", row.known[-1] if known else 0.0),
        ):
            sums[f"{name} {part}"] = value * mine
    return sums
