"""Confidence intervals of rates, means and other statistics. Functions of numbers, without state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repro_rl.errors import DataError


class Interval(NamedTuple):
    """A point estimate with its interval; ``low`` and ``high`` are nan below two values."""

    mean: float
    low: float
    high: float
    size: int  # values it rests on


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate, both ends in 0..1 (Wilson 1927).

    Without trials (0, 1). The trials are taken as independent, which several rollouts of one task are not. So
    with a few tasks and many rollouts use ``bootstrap_interval`` over the per-task rates instead.
    Raises DataError when successes are not within 0..trials.
    """
    _check_confidence(confidence)
    if trials < 0 or not 0 <= successes <= trials:
        raise DataError(
            f"{successes} successes of {trials} trials is impossible; give 0 <= successes <= trials."
        )
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At the ends the formula gives 0 and 1 exactly; floating point does not.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean with a Student t interval, meant for a handful of seeds. ``values``: [n], any unit, finite.

    n = 1 gives the value with a nan interval, n = 0 nan throughout. The ends are not clipped to 0..1: an
    interval that leaves the range says that there are too few seeds (decision D49).
    """
    _check_confidence(confidence)
    data = _finite(values)
    if data.size < 2:
        return _no_interval(data)
    mean = float(data.mean())
    error = float(data.std(ddof=1)) / math.sqrt(data.size)
    half = student_quantile(0.5 + confidence / 2, data.size - 1) * error
    return Interval(mean, mean - half, mean + half, int(data.size))


def column_intervals(rows: NDArray[np.float64]) -> dict[str, list[float] | None]:
    """``mean``, and ``low`` and ``high`` of its 95 % t interval, of every column of ``rows`` [n, columns].

    No ends below 3 rows, where the interval is too wide to say anything; no means without rows.
    """
    spans = [mean_interval(column.tolist()) for column in rows.T] if len(rows) else []
    enough = len(rows) > 2
    return {
        "mean": [span.mean for span in spans],
        "low": [span.low for span in spans] if enough else None,
        "high": [span.high for span in spans] if enough else None,
    }


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., Any] = np.mean,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """``statistic(values)`` with a percentile bootstrap interval; the same seed gives the same interval.

    ``values``: [n], resampled one by one, so each must be an independent unit (a task, a seed).
    ``statistic`` maps an array to a number along ``axis``. Percentile rather than BCa, which is undefined
    on data without spread (decision D50). Raises DataError for values that are not finite.
    """
    _check_confidence(confidence)
    data = _finite(values)
    if data.size < 2:
        return _no_interval(data)
    point = float(statistic(data, axis=-1))
    if np.all(data == data[0]):
        return Interval(point, point, point, int(data.size))
    rng = np.random.default_rng(seed)
    batch = max(1, 4_000_000 // data.size)  # bounds the memory of the resamples
    parts = []
    for done in range(0, resamples, batch):
        index = rng.integers(0, data.size, (min(batch, resamples - done), data.size))
        parts.append(statistic(data[index], axis=-1))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(parts), [tail, 100 - tail])
    return Interval(point, float(low), float(high), int(data.size))


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks 1..n of ``values`` [n]; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution, for ``probability`` from 0.5 on; about 12 digits.

    ``freedom``: degrees of freedom, at least 1. By bisection of the distribution function.
    """
    high = 2.0
    while _student_tail(high, freedom) > 1 - probability:
        high *= 2
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _student_tail(middle, freedom) > 1 - probability else (low, middle)
    return high


def _student_tail(t: float, freedom: int) -> float:
    """P(T > t) for t >= 0: half the regularized incomplete beta function at n / (n + t^2)."""
    return 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function, by Lentz's continued fraction (DLMF 8.17.22)."""
    if x > (a + 1) / (a + b + 2):  # where the fraction of the other tail converges faster
        return 1 - _incomplete_beta(b, a, 1 - x)
    if x == 0:
        return 0.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1000):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * (value - 1) / a


def _no_interval(data: NDArray[np.float64]) -> Interval:
    return Interval(float(data[0]) if data.size else math.nan, math.nan, math.nan, int(data.size))


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.all(np.isfinite(data)):
        raise DataError("A value is nan or infinite; leave failed runs out explicitly.", field="values")
    return data


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise DataError(f"{confidence} is not between 0 and 1, e.g. 0.95.", field="confidence")
