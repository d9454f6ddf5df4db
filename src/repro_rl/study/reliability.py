"""Does a reported 70 % mean 70 %? Reported progress in bins, against the truth and against the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from repro_rl.study.recorded import RecordedEpisode
from repro_rl.study.resample import Resampler, interval, ratio

Against = Literal["truth", "success"]
BINS = 10  # of equal width; the last holds 100 too


def bin_of(value: float, bins: int = BINS) -> int:
    """The bin 0..bins-1 of a progress 0..1; both ends belong to the outer bins. .7 is in bin 7, not 6."""
    return min(bins - 1, max(0, int(round(value * bins, 9))))


def reliability(
    episodes: Sequence[RecordedEpisode],
    which: str,
    against: Against,
    sampler: Resampler,
    bins: int = BINS,
) -> dict[str, Any] | None:
    """Bins of reported progress with counts, mean reported, mean reached, and the calibration error.

    Against "truth": all steps that have both; against "success": the steps before the last (1..T-1), and the
    outcome of their episode as 0 or 100. Of a bin ``said`` is the mean reported and ``met`` the mean reached.
    ``ece``: mean over steps of |mean reported - mean reached| of the step's bin, points. The error of a
    finite sample is biased upwards: chance alone makes bins differ. None when there is no such step.
    """
    steps, reported, reached = (np.zeros((bins, len(episodes))) for _ in range(3))
    for owner, episode in enumerate(episodes):
        series = episode.series[which]
        if against == "truth":
            pairs = series.pairs()
        else:
            pairs = [(value, float(episode.won)) for value in series.series[:-1] if value is not None]
        for value, outcome in pairs:
            number = bin_of(value, bins)
            steps[number, owner] += 1
            reported[number, owner] += value
            reached[number, owner] += outcome
    columns = {"steps": steps, "reported": reported, "reached": reached}
    totals = sampler.totals(
        {f"{name}{number}": row.tolist() for name, rows in columns.items() for number, row in enumerate(rows)}
    )
    count = np.sum([totals[f"steps{number}"] for number in range(bins)], axis=0)
    if not count[0]:
        return None
    gaps = [np.abs(totals[f"reported{number}"] - totals[f"reached{number}"]) for number in range(bins)]
    rows = [
        {
            "low": 100 * number / bins,
            "high": 100 * (number + 1) / bins,
            "steps": int(size[0]),
            "episodes": int(np.count_nonzero(steps[number])),
            "said": interval(ratio(totals[f"reported{number}"], size), 100)["value"],
            "met": interval(ratio(totals[f"reached{number}"], size), 100),
        }
        for number in range(bins)
        if (size := totals[f"steps{number}"])[0]
    ]
    return {"steps": int(count[0]), "bins": rows, "ece": interval(ratio(np.sum(gaps, axis=0), count), 100)}
