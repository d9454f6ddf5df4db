"""GRPO: one advantage per trajectory, its return against the rollouts of the same task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from repro_rl.credit.baseline import (
    Normalize,
    check_choice,
    check_pairs,
    finite_array,
    normalise,
    number_keys,
)


def grpo_advantages(
    returns: Sequence[float], groups: Sequence[Hashable], *, normalize: Normalize = "mean"
) -> list[float]:
    """Return the advantage of each trajectory, [N], from its return [N] and its group's name [N].

    ``"mean"`` subtracts the group's mean; ``"mean_std"`` also divides by the unbiased standard deviation +
    1e-6. A group of exactly one keeps its raw return (mean 0, spread 1), as the public implementations do.
    Raises ConfigError for unequal lengths, a NaN or infinite return, or an unknown ``normalize``.
    """
    check_choice("normalize", normalize, ("mean", "mean_std"))
    check_pairs("grpo_advantages", returns, groups)
    values = finite_array("returns", returns)
    ids = number_keys("group names", groups)
    advantages = normalise(values, ids, np.ones_like(values), normalize, lone_keeps_value=True)
    return [float(value) for value in advantages]
