"""GiGPO (arXiv 2505.10978): A_episode + omega * A_step, where steps are compared by state."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from repro_rl.credit.baseline import (
    EpisodeBaseline,
    Normalize,
    check_choice,
    check_discount,
    check_entries,
    check_steps,
    finite_array,
    normalise,
    number_keys,
    returns_to_go,
)
from repro_rl.errors import ConfigError
from repro_rl.files import finite


def gigpo_advantages(
    rewards: Sequence[Sequence[float]],
    groups: Sequence[Hashable],
    anchors: Sequence[Sequence[Hashable]],
    *,
    gamma: float,
    omega: float,
    normalize: Normalize = "mean",
    episode_baseline: EpisodeBaseline = "steps",
    episode_returns: Sequence[float] | None = None,
) -> list[list[float]]:
    """Return ``A_episode + omega * A_step`` of every step, in the shape of ``rewards``.

    rewards: N lists of T_n step rewards (reward units). anchors: N lists of T_n state keys. groups: N task
    names.

    A_episode: the trajectory's return minus the mean of its group. The return is ``episode_returns``, or the
    undiscounted sum of its rewards. ``episode_baseline="steps"`` takes the mean over all steps of the group,
    so a long trajectory weighs more (the public implementation's default). ``"trajectories"`` counts each
    trajectory that has a step once. A group of exactly one value keeps the raw return.

    A_step: the return-to-go, discounted with ``gamma``, minus its mean over all steps with the same group and
    anchor. A step alone there gets 0. Assumption: equal anchors are equal states.

    ``normalize="mean_std"`` divides each part by the unbiased standard deviation + 1e-6. Decision D16: "mean"
    is the default. Source: the paper, and the public GiGPO implementation for each detail.
    Raises ConfigError for inconsistent lengths, non-finite numbers, unhashable keys or unknown options.
    """
    check_choice("normalize", normalize, ("mean", "mean_std"))
    check_choice("episode_baseline", episode_baseline, ("steps", "trajectories"))
    check_discount(gamma)
    if not finite(omega):
        raise ConfigError(f"omega is {omega!r}; it must be a finite number.")
    check_steps("gigpo_advantages", rewards, groups, anchors)
    if episode_returns is not None:
        check_entries("gigpo_advantages", rewards, "episode_returns", episode_returns)
    lengths = np.asarray([len(row) for row in rewards], dtype=np.intp)
    finite_array("rewards", (value for row in rewards for value in row))
    if episode_returns is None:
        episode = np.asarray([sum(row) for row in rewards], dtype=np.float64)
    else:
        episode = finite_array("episode_returns", episode_returns)
    group_ids = number_keys("group names", groups)
    counts = np.asarray(lengths if episode_baseline == "steps" else lengths > 0, dtype=np.float64)
    episode_part = normalise(episode, group_ids, counts, normalize, lone_keeps_value=True)

    row_groups = np.repeat(group_ids, lengths).tolist()
    keys_flat = [key for keys in anchors for key in keys]
    step_ids = number_keys("anchors", list(zip(row_groups, keys_flat, strict=True)))
    values = np.asarray([value for row in rewards for value in returns_to_go(row, gamma)], dtype=np.float64)
    step_part = normalise(values, step_ids, np.ones_like(values), normalize, lone_keeps_value=False)

    flat = (np.repeat(episode_part, lengths) + omega * step_part).tolist()
    ends = np.cumsum(lengths).tolist()
    return [flat[end - len(row) : end] for end, row in zip(ends, rewards, strict=True)]
