"""Cluster bootstrap: every measure of one set of episodes from the same resamples, so that they pair.

Clusters (tasks where each has several rollouts, else episodes) are drawn with replacement. Each measure is
computed again from the sums over what was drawn. Arrays of resamples are [B + 1]; index 0 is the sample
itself.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BATCH = 4_000_000  # numbers held at once while summing
_WORK = 20_000_000  # ranked values per rank correlation; larger sets get fewer resamples
_DEFINED = 0.9  # an interval needs at least this share of resamples on which the measure exists


class Resampler:
    """Draws of the clusters of [E] episodes. ``counts`` [B + 1, C]: how often each was drawn."""

    def __init__(self, clusters: Sequence[Hashable], *, resamples: int = 1000, seed: int = 0) -> None:
        seen: dict[Hashable, int] = {}
        self.ids = np.asarray([seen.setdefault(name, len(seen)) for name in clusters], dtype=np.intp)  # [E]
        self.clusters = len(seen)
        rng = np.random.default_rng(seed)
        rows = [np.ones(self.clusters, dtype=np.uint16)]
        for _ in range(resamples if self.clusters > 1 else 0):
            drawn = rng.integers(self.clusters, size=self.clusters)
            rows.append(np.bincount(drawn, minlength=self.clusters).astype(np.uint16))
        self.counts = np.stack(rows)

    def totals(self, columns: Mapping[str, Sequence[float]]) -> dict[str, Floats]:
        """Columns of one number an episode, [E], to their sums in every resample, [B + 1]."""
        table = np.zeros((self.clusters, len(columns)))
        values = np.asarray(list(columns.values()), dtype=np.float64).reshape(len(columns), len(self.ids))
        np.add.at(table, self.ids, values.T)
        size = max(1, _BATCH // max(1, self.clusters))
        sums = [
            self.counts[begin : begin + size].astype(np.float64) @ table
            for begin in range(0, len(self.counts), size)
        ]
        totals = np.concatenate(sums)
        # The sample's own sums are rounded once, whatever the order of its episodes.
        totals[0] = [math.fsum(column) for column in columns.values()]
        return dict(zip(columns, totals.T, strict=True))

    def spearman(self, owners: Sequence[int], pairs: Sequence[tuple[float, float]]) -> Floats:
        """Rank correlation of ``pairs`` [n] that belong to the episodes ``owners`` [n], in every resample.

        A cluster drawn twice counts twice, ties at their mean rank. nan below 3 pairs or without spread. Sets
        so large that it would take minutes get fewer resamples, at least 100.
        """
        rows = min(len(self.counts), 1 + max(100, _WORK // max(1, len(pairs))))
        result = np.full(rows, math.nan)
        if len(pairs) < 3:
            return result
        data = np.asarray(pairs, dtype=np.float64)
        x, y = (np.unique(column, return_inverse=True)[1] for column in data.T)
        cluster = self.ids[np.asarray(owners, dtype=np.intp)]
        for row in range(rows):
            weight = self.counts[row][cluster].astype(np.float64)
            total = weight.sum()
            if total < 3:
                continue
            a, b = _midranks(x, weight) - total / 2, _midranks(y, weight) - total / 2
            spread = float((weight * a) @ a) * float((weight * b) @ b)
            if spread > 0:
                result[row] = float((weight * a) @ b) / math.sqrt(spread)
        clipped: Floats = np.clip(result, -1.0, 1.0)
        return clipped


def ratio(above: Floats, below: Floats) -> Floats:
    """``above / below`` in every resample, each [B + 1]; nan where ``below`` is 0."""
    result = np.full(np.broadcast(above, below).shape, math.nan)
    np.divide(above, below, out=result, where=below != 0)
    return result


def interval(values: Floats, scale: float = 1.0, confidence: float = 0.95) -> dict[str, Any]:
    """{value, low, high} from [B + 1] resamples: percentile ends, None where undefined, times ``scale``.

    No ends when the measure exists on fewer than nine of ten resamples (too few successes, say).
    """
    drawn = values[1:]
    defined = drawn[np.isfinite(drawn)]
    low = high = None
    if math.isfinite(values[0]) and defined.size and defined.size >= _DEFINED * drawn.size:
        tail = (1 - confidence) / 2
        ends = np.quantile(defined, [tail, 1 - tail])
        low, high = scale * float(ends[0]), scale * float(ends[1])
    value = scale * float(values[0]) if math.isfinite(values[0]) else None
    return {"value": value, "low": low, "high": high}


def _midranks(ids: NDArray[np.intp], weight: Floats) -> Floats:
    mass = np.bincount(ids, weights=weight)
    ranks: Floats = (np.cumsum(mass) - mass / 2)[ids]
    return ranks
