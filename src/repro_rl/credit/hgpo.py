"""HGPO (arXiv 2602.22817): step groups by the state and by the states before it, deeper ones weigh more."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from repro_rl.credit.baseline import EPSILON, Normalize, check_choice, check_steps, finite_array, number_keys
from repro_rl.credit.gigpo import returns_to_go
from repro_rl.errors import ConfigError

SAME = 1e-9  # an advantage below this share of the group's largest value counts as zero


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

    rewards: N lists of T_n step rewards (reward units); anchors: N lists of T_n state keys; groups: N task
    names. ``history``: past states that a group may share beside the current one (the paper's K).

    Level k = 1..history+1 groups the steps of one task whose last k states, the current one included, are
    the same; a step has no level deeper than its own past. In each group of two steps or more the
    return-to-go, discounted with ``gamma``, is measured against the group's mean (``"mean_std"``: divided by
    the *population* standard deviation + 1e-6). The advantage is the mean over the levels, weighted with
    ``(k + 1) ** level_power``; levels where the step is alone or its advantage is 0 take no part, and a step
    without any gets 0. There is no episode part, and actions are no part of the context.

    Source: the paper, known to us from published notes on it, and the authors' public recipe, which gives
    every detail above and the defaults K = 2 and alpha = 1. The notes count levels from 0, which makes the
    weights 1, 2, 3 where the recipe, which was run, has 2, 3, 4; we follow the recipe. Its option
    ``base_group`` (off by default) is not here. Our decisions: what counts as 0 has a tolerance for rounding,
    and no epsilon is added to the sum of the weights.
    Raises ConfigError for inconsistent lengths, non-finite numbers, unhashable keys or unknown options.
    """
    check_choice("normalize", normalize, ("mean", "mean_std"))
    if history < 0:
        raise ConfigError(f"hgpo_advantages: history is {history}; give 0 or more past states.")
    if not len(rewards) == len(groups) == len(anchors):
        raise ConfigError(
            f"hgpo_advantages got {len(rewards)} trajectories in rewards, {len(groups)} in groups and "
            f"{len(anchors)} in anchors; give one entry per trajectory."
        )
    check_steps("hgpo_advantages", rewards, anchors)
    finite_array("rewards", (value for row in rewards for value in row))
    values = np.asarray([value for row in rewards for value in returns_to_go(row, gamma)], dtype=np.float64)
    total, weight = np.zeros_like(values), np.zeros_like(values)
    for level in range(1, history + 2):
        rows = [
            (place, (group, *keys[t - level + 1 : t + 1]))
            for group, keys, start in zip(groups, anchors, _starts(anchors), strict=True)
            for place, t in ((start + t, t) for t in range(level - 1, len(keys)))
        ]
        if not rows:
            break
        places = np.asarray([place for place, _ in rows], dtype=np.intp)
        ids = number_keys("anchors", [key for _, key in rows])
        advantage = _relative(values[places], ids, normalize)
        strength = np.where(advantage != 0.0, float(level + 1) ** level_power, 0.0)
        total[places] += strength * advantage
        weight[places] += strength
    flat = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0).tolist()
    return [flat[start : start + len(keys)] for keys, start in zip(anchors, _starts(anchors), strict=True)]


def _starts(anchors: Sequence[Sequence[Hashable]]) -> list[int]:
    """Where each trajectory begins in the flat arrays, [N]."""
    return [0, *np.cumsum([len(keys) for keys in anchors])[:-1].tolist()] if anchors else []


def _relative(
    values: NDArray[np.float64], ids: NDArray[np.intp], normalize: Normalize
) -> NDArray[np.float64]:
    """Each value against its group, [n]; exactly 0 where it is alone or equals the mean but for rounding."""
    count = np.bincount(ids)
    mean = np.bincount(ids, weights=values) / count
    deviation = values - mean[ids]
    largest = np.zeros(len(count))
    np.maximum.at(largest, ids, np.abs(values))
    deviation[(np.abs(deviation) <= SAME * largest[ids]) | (count[ids] == 1)] = 0.0
    if normalize == "mean":
        return deviation
    spread = np.sqrt(np.bincount(ids, weights=deviation**2) / count)
    result: NDArray[np.float64] = deviation / (spread + EPSILON)[ids]
    return result
