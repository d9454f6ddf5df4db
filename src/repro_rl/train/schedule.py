"""What an iteration plays and trains on: tasks, mini-batches, which rank plays what, which reflections count.

Everything here is a pure function of the seed and the iteration, so a continued run and every rank agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro_rl.credit import ReflectionChoice
from repro_rl.credit.sources import has_win
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.policy.base import SamplingSettings
from repro_rl.random_streams import name_key
from repro_rl.run.setup import Setup
from repro_rl.types import Trajectory


def task_schedule(ids: Sequence[str], seed: int, iteration: int, count: int) -> list[str]:
    """The tasks of an iteration (1-based): successive slices of one shuffled pass after another.

    Raises ConfigError without tasks.
    """
    if not ids:
        raise ConfigError("task_schedule: there are no tasks to draw from.")
    start = (iteration - 1) * count
    tasks = []
    for position in range(start, start + count):
        epoch, offset = divmod(position, len(ids))
        order = np.random.default_rng(name_key(seed, "tasks", epoch)).permutation(len(ids))
        tasks.append(ids[int(order[offset])])
    return tasks


def minibatch_order(groups: int, iteration: int, seed: int) -> list[int]:
    """The task groups of an iteration in the order that fills its mini-batches: they are never split."""
    order = np.random.default_rng(name_key(seed, "minibatch", iteration)).permutation(groups)
    return [int(group) for group in order]


def group_owners(groups: int, iteration: int, seed: int, world: int) -> list[int]:
    """Which rank plays which group: dealt out in ``minibatch_order``.

    So all ranks make an equal part of every mini-batch, up to one group.
    """
    owners = [0] * groups
    for position, group in enumerate(minibatch_order(groups, iteration, seed)):
        owners[group] = position % world
    return owners


def check_share(groups: int, world: int) -> None:
    """Raises ConfigError when a rank would have no group to play."""
    if groups < world:
        raise ConfigError(
            f"train.groups is {groups}, but {world} processes were started: some would have nothing to play. "
            "Start fewer processes or raise train.groups."
        )


def check_one_process(dynamic_sampling: int, scores: str, world: int) -> None:
    """Raises PreflightError for settings that several processes cannot share.

    ``scores``: the setting for which answers are scored a second time; empty for none.
    """
    what = "train.dynamic_sampling" if dynamic_sampling else scores
    if what and world > 1:
        raise PreflightError(
            f"{what} is for one training process; {world} were started. Start one, or turn the setting off."
        )


@dataclass(frozen=True, slots=True)
class ReflectionSampling:
    """How reflections are sampled: those trained on as the policy acts, others apart (decision D23)."""

    choice: ReflectionChoice
    group_size: int
    max_new_tokens: int
    temperature: float  # of the samples that are trained on
    judge_temperature: float | None  # of the others; None: the same

    @classmethod
    def of_run(cls, setup: Setup) -> ReflectionSampling:
        """How a run of these settings samples its reflections."""
        config = setup.config
        return cls(
            setup.reflection_choice(),
            group_size=config.train.group_size,
            max_new_tokens=config.prompt.reflect_new_tokens,
            temperature=config.train.temperature,
            judge_temperature=config.method.judge_temperature,
        )

    def settings(self, iteration: int, group: int, number: int) -> SamplingSettings:
        """For the reflection on rollout ``number`` (0-based) of a group."""
        temperature = self.judge_temperature
        if temperature is None or number in self.choice.chosen(iteration, group, self.group_size):
            temperature = self.temperature
        return SamplingSettings(self.max_new_tokens, temperature)

    def of(self, iteration: int, trajectory: Trajectory) -> SamplingSettings:
        """For the reflection on a trajectory whose rollout is numbered through the iteration."""
        group, number = divmod(trajectory.rollout, self.group_size)
        return self.settings(iteration, group, number)

    def without_win(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories of groups that no completed rollout won; all rollouts of a group must be given."""
        groups: dict[int, list[Trajectory]] = {}
        for trajectory in trajectories:
            groups.setdefault(trajectory.rollout // self.group_size, []).append(trajectory)
        return [t for group in groups.values() if not has_win(group) for t in group]
