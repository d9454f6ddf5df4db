"""RLOO: one advantage per trajectory, its return against the mean of the *other* ones of the task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from repro_rl.credit.baseline import finite_array, number_keys
from repro_rl.errors import ConfigError


def rloo_advantages(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Return ``R_i - mean of R_j over j != i of the group`` for each trajectory, [N], from returns [N].

    The baseline does not contain the trajectory's own return, so it is independent of it and the gradient is
    unbiased (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740). For a group of n it is n / (n - 1)
    times the deviation from the group's mean. A group of exactly one keeps its raw return, as in
    ``grpo_advantages`` and the public implementations.
    Raises ConfigError for unequal lengths or a NaN or infinite return.
    """
    if len(returns) != len(groups):
        raise ConfigError(
            f"rloo_advantages got {len(returns)} returns and {len(groups)} group names; "
            "give one of each per trajectory."
        )
    values = finite_array("returns", returns)
    if not values.size:
        return []
    ids = number_keys("group names", groups)
    count = np.bincount(ids)[ids]
    others = (np.bincount(ids, weights=values)[ids] - values) / np.maximum(count - 1, 1)
    return [float(value) for value in np.where(count > 1, values - others, values)]
