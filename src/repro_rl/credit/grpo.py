"""GRPO (arXiv 2402.03300): a trajectory's return minus the mean return of its task."""

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
    """Return ``R_i - mean(R)`` for each trajectory, [N], from returns [N] and the names of their groups [N].

    ``"mean_std"`` also divides by the unbiased standard deviation + 1e-6, as the paper does; decision D16
    makes "mean" the default. A group of exactly one keeps its raw return, as the public implementations do.
    Assumption: all steps of a trajectory share its merit.
    Raises ConfigError for unequal lengths, a NaN or infinite return, or an unknown ``normalize``.
    """
    check_choice("normalize", normalize, ("mean", "mean_std"))
    check_pairs("grpo_advantages", returns, groups)
    values = finite_array("returns", returns)
    ids = number_keys("group names", groups)
    advantages = normalise(values, ids, np.ones_like(values), normalize, lone_keeps_value=True)
    return [float(value) for value in advantages]
