"""RLOO: one advantage per trajectory, its return against the mean of the *other* ones of the task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from repro_rl.credit.baseline import check_pairs, finite_array, number_keys


def rloo_advantages(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Return ``R_i - mean of R_j over j != i of the group`` for each trajectory, [N], from returns [N].

    The baseline does not contain the trajectory's own return, so it is independent of it and the gradient is
    unbiased (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740). For a group of n it is n / (n - 1)
    times the deviation from the group's mean. A group of exactly one keeps its raw return, as in
    ``grpo_advantages`` and the public implementations.
    Raises ConfigError for unequal lengths or a NaN or infinite return.
    """
    check_pairs("rloo_advantages", returns, groups)
    values = finite_array("returns", returns)
    if not values.size:
        return []
    ids = number_keys("group names", groups)
    count = np.bincount(ids)[ids]
    others = (np.bincount(ids, weights=values)[ids] - values) / np.maximum(count - 1, 1)
    return [float(value) for value in np.where(count > 1, values - others, values)]
