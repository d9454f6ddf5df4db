"""Confidence intervals of rates, means and other statistics. Functions of numbers, without state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from repro_rl.errors import DataError


class Interval(NamedTuple):
    """A point estimate with its interval; ``low`` and ``high`` are nan below two values."""

    mean: float
    low: float
    high: float
    size: int  # values it rests on


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate, both ends in 0..1 (Wilson 1927).

    Without trials (0, 1). The trials are taken as independent; several rollouts of one task are not,
    so with a few tasks and many rollouts use `bootstrap_interval` over the per-task rates instead.
    Raises DataError when successes are not within 0..trials.
    """
    _check_confidence(confidence)
    if trials < 0 or not 0 <= successes <= trials:
        raise DataError(
            f"{successes} successes of {trials} trials is impossible; give 0 <= successes <= trials."
        )
    if trials == 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf(0.5 + confidence / 2))
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
    half = float(stats.t.ppf(0.5 + confidence / 2, data.size - 1)) * error
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
    result = stats.bootstrap(
        (data,),
        statistic,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        batch=max(1, 4_000_000 // data.size),  # bounds the memory of the resamples
        random_state=np.random.default_rng(seed),
    )
    return Interval(
        point, float(result.confidence_interval.low), float(result.confidence_interval.high), int(data.size)
    )


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
