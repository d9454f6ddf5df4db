"""HGPO (arXiv 2602.22817): steps are compared by state and by history; longer histories weigh more."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from repro_rl.credit.baseline import (
    EPSILON,
    Floats,
    Normalize,
    check_choice,
    check_discount,
    check_steps,
    finite_array,
    number_keys,
    returns_to_go,
)
from repro_rl.errors import ConfigError
from repro_rl.files import finite

TOLERANCE = 1e-9  # relative to the group's largest value; a smaller deviation is rounding and counts as 0


def hgpo_advantages(
    rewards: Sequence[Sequence[float]],
    groups: Sequence[Hashable],
    anchors: Sequence[Sequence[Hashable]],
    *,
    gamma: float,
    history: int = 2,
    level_power: float = 1.0,
    normalize: Normalize = "mean_std",
) -> list[list[float]]:
    """Return the aggregated advantage of every step, in the shape of ``rewards``.

    rewards: N lists of T_n step rewards (reward units). anchors: N lists of T_n state keys. groups: N task
    names. ``history``: past states that a group may share besides the current one (the paper's K).
    Level k = 1..history+1 groups the steps of one task whose last k states are equal, the current one
    included. A step has no level longer than its own past. A_k is the return-to-go, discounted with
    ``gamma``, minus the mean of its group; ``"mean_std"`` divides by the *population* standard deviation +
    1e-6. The advantage is ``sum(w_k * A_k) / sum(w_k)`` with ``w_k = (k + 1) ** level_power``. Levels where
    the step is alone, or where A_k is 0, take no part; a step without any level gets 0. There is no episode
    part, and actions are no part of the history.

    Assumption: states with an equal past are worth the same. Source: published notes on the paper, and the
    authors' public recipe for every detail above and K = 2, alpha = 1. Counting levels from 0, the notes
    have the weights 1, 2, 3, the recipe 2, 3, 4. Decision D20: the recipe counts, because it was run.
    What counts as 0 has a tolerance, and the weights' sum no epsilon.
    Raises ConfigError for inconsistent lengths, non-finite numbers, unhashable keys or unknown options.
    """
    check_choice("normalize", normalize, ("mean", "mean_std"))
    check_discount(gamma)
    if not isinstance(history, Integral) or history < 0:
        raise ConfigError(f"hgpo_advantages: history is {history!r}; give 0 or more past states.")
    if not finite(level_power):
        raise ConfigError(f"hgpo_advantages: level_power is {level_power!r}; it must be a finite number.")
    check_steps("hgpo_advantages", rewards, groups, anchors)
    finite_array("rewards", (value for row in rewards for value in row))
    values = np.asarray([value for row in rewards for value in returns_to_go(row, gamma)], dtype=np.float64)
    total, weight = np.zeros_like(values), np.zeros_like(values)
    lengths = np.asarray([len(keys) for keys in anchors], dtype=np.intp)
    starts = (np.cumsum(lengths) - lengths).tolist()  # [N], the first step of each in the flat arrays
    for level in range(1, history + 2):
        rows = [
            (start + t, (group, *keys[t - level + 1 : t + 1]))
            for group, keys, start in zip(groups, anchors, starts, strict=True)
            for t in range(level - 1, len(keys))
        ]
        if not rows:
            break
        indices = np.asarray([index for index, _ in rows], dtype=np.intp)
        ids = number_keys("anchors", [key for _, key in rows])
        advantage = _relative(values[indices], ids, normalize)
        level_weight = np.where(advantage != 0.0, float(level + 1) ** level_power, 0.0)
        total[indices] += level_weight * advantage
        weight[indices] += level_weight
    flat = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0).tolist()
    return [flat[start : start + len(keys)] for keys, start in zip(anchors, starts, strict=True)]


def _relative(values: Floats, ids: NDArray[np.intp], normalize: Normalize) -> Floats:
    """[n], each value relative to its group; exactly 0 where it is alone or, up to rounding, the mean."""
    count = np.bincount(ids)
    mean = np.bincount(ids, weights=values) / count
    deviation = values - mean[ids]
    largest = np.zeros(len(count))
    np.maximum.at(largest, ids, np.abs(values))
    deviation[(np.abs(deviation) <= TOLERANCE * largest[ids]) | (count[ids] == 1)] = 0.0
    if normalize == "mean":
        return deviation
    deviation_scale = np.sqrt(np.bincount(ids, weights=deviation**2) / count)
    result: Floats = deviation / (deviation_scale + EPSILON)[ids]
    return result
