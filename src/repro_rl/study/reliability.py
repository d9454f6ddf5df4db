"""Is 70 % said also 70 %? Said progress in bins against the truth and against what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from repro_rl.study.judged import Judged
from repro_rl.study.resample import Resampler, interval, ratio

Against = Literal["truth", "success"]
BINS = 10  # of equal width; the last holds 100 too


def bin_of(value: float, bins: int = BINS) -> int:
    """The bin 0..bins-1 of a progress 0..1; both ends belong to the outer bins. .7 is in bin 7, not 6."""
    return min(bins - 1, max(0, int(round(value * bins, 9))))


def reliability(
    episodes: Sequence[Judged], which: str, against: Against, sampler: Resampler, bins: int = BINS
) -> dict[str, Any] | None:
    """Bins of said progress with counts, mean said and mean reached, and the calibration error.

    Against "truth": all steps that have both; against "success": the steps before the last (1..T-1), and the
    outcome of their episode as 0 or 100. ``ece``: mean over steps of |mean said - mean reached| of the step's
    bin, points. The error of a finite sample is biased upwards: chance alone makes bins differ.
    None when there is no such step.
    """
    size = len(episodes)
    columns: dict[str, list[float]] = {
        f"{name}{place}": [0.0] * size for place in range(bins) for name in ("n", "said", "met")
    }
    for owner, episode in enumerate(episodes):
        series = episode.series[which]
        if against == "truth":
            pairs = series.pairs()
        else:
            pairs = [(value, float(episode.won)) for value in series.series[:-1] if value is not None]
        for said, met in pairs:
            place = bin_of(said, bins)
            columns[f"n{place}"][owner] += 1
            columns[f"said{place}"][owner] += said
            columns[f"met{place}"][owner] += met
    totals = sampler.totals(columns)
    count = np.sum([totals[f"n{place}"] for place in range(bins)], axis=0)
    if not count[0]:
        return None
    gaps = [np.abs(totals[f"said{place}"] - totals[f"met{place}"]) for place in range(bins)]
    rows = []
    for place in range(bins):
        number = totals[f"n{place}"]
        if number[0]:
            rows.append(
                {
                    "low": 100 * place / bins,
                    "high": 100 * (place + 1) / bins,
                    "steps": int(number[0]),
                    "episodes": sum(value > 0 for value in columns[f"n{place}"]),
                    "said": interval(ratio(totals[f"said{place}"], number), 100)["value"],
                    "met": interval(ratio(totals[f"met{place}"], number), 100),
                }
            )
    return {"steps": int(count[0]), "bins": rows, "ece": interval(ratio(np.sum(gaps, axis=0), count), 100)}
