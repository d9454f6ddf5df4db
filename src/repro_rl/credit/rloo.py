"""RLOO (arXiv 2402.14740): a trajectory's return minus the mean return of the *others* of its task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from repro_rl.credit.baseline import check_pairs, finite_array, number_keys


def rloo_advantages(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Return ``R_i - mean(R_j, j != i)`` for each trajectory, [N], from returns [N] and group names [N].

    The baseline does not contain the trajectory's own return, so the gradient estimate is unbiased (Kool et
    al. 2019; Ahmadian et al. 2024, arXiv 2402.14740). In a group of n the advantage is n / (n - 1) times the
    deviation from the group's mean. A group of exactly one keeps its raw return, as in ``grpo_advantages``.
    Assumption: all steps of a trajectory share its merit.
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
