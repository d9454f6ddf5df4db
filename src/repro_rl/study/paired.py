"""Statistics for a handful of seeds: robust means, paired differences, exact and corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from repro_rl.errors import DataError
from repro_rl.study.stats import Interval

MAX_EXACT = 20  # seeds; 2^20 sign patterns are about a million sums


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half of [n] values, nan for none.

    A quarter of the *weight* is cut off each end, so a value may count in part (decision D51). Of 5 values
    the weights are 0, .75, 1, .75, 0. The function ``scipy.stats.trim_mean`` rounds the cut to whole values,
    and of 3 values would cut none.
    """
    data = np.sort(np.asarray(values, dtype=np.float64))
    if not data.size:
        return math.nan
    edges = np.arange(data.size + 1, dtype=np.float64)
    low, high = data.size / 4, 3 * data.size / 4
    weights = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None)
    return float(data @ weights / weights.sum())


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Two-sided exact p-value that paired differences [n] are centred on 0: all 2^n patterns of signs.

    The share of patterns whose |sum| is at least the observed one. Its smallest value is 2 / 2^n
    (``smallest_p``), whatever the data: 5 seeds cannot reach 0.05. Assumes that a difference is as likely to
    have either sign, nothing about its size (decision D52). None for no values or for more than 20.
    """
    data = np.asarray(differences, dtype=np.float64)
    if not 0 < data.size <= MAX_EXACT:
        return None
    sums = np.zeros(1)
    for value in data:
        sums = np.concatenate([sums + value, sums - value])
    observed = abs(float(data.sum()))
    # Equal sums that were added in another order must tie.
    return float(np.mean(np.abs(sums) >= observed - 1e-9 * max(1.0, float(np.abs(data).sum()))))


def smallest_p(seeds: int) -> float:
    """The smallest two-sided p-value that ``sign_flip_p`` can give with so many seeds."""
    return min(1.0, 2.0 ** (1 - seeds)) if seeds > 0 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values [m] adjusted for m comparisons in one family (Holm 1979), in the order given, at most 1."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return adjusted


def crossed_bootstrap(
    table: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 4_000, seed: int = 0
) -> Interval:
    """The mean of ``table`` [seeds, tasks] with a percentile interval from resampling both.

    Every seed plays the same tasks, so rows and columns are drawn with replacement independently of each
    other. This is the "pigeonhole" bootstrap (Owen 2007), a little too wide rather than too narrow. It asks
    what other seeds on other tasks of the kind would give. With 5 seeds its ends are coarse all the same.
    The ends are nan below two rows or two columns. Raises DataError for a value that is not finite.
    """
    if table.ndim != 2 or not np.isfinite(table).all():
        raise DataError("expected finite values, one row a seed and one column a task.", field="table")
    rows, columns = table.shape
    mean = float(table.mean()) if table.size else math.nan
    if rows < 2 or columns < 2:
        return Interval(mean, math.nan, math.nan, rows)
    rng = np.random.default_rng(seed)
    means: list[NDArray[np.float64]] = []
    batch = max(1, 2_000_000 // columns)  # bounds the memory
    for begin in range(0, resamples, batch):
        size = min(batch, resamples - begin)
        by_row = rng.multinomial(rows, np.full(rows, 1 / rows), size) / rows  # [size, rows]
        by_column = rng.multinomial(columns, np.full(columns, 1 / columns), size) / columns
        means.append(np.einsum("bt,bt->b", by_row @ table, by_column))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(mean, float(low), float(high), rows)
