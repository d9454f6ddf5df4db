"""Rollouts: act in all live episodes at once, then reflect on the finished ones."""

from __future__ import annotations

from collections.abc import Sequence

from repro_rl.errors import ConfigError
from repro_rl.rollout.act import Actor, PlayOptions, RolloutRequest, run_episodes
from repro_rl.rollout.context import Context
from repro_rl.rollout.env_pool import EnvPool
from repro_rl.rollout.record import read_trajectories, trajectory_record, write_trajectories
from repro_rl.rollout.reflection import Judge, reflect
from repro_rl.types import Group


def play(
    context: Context,
    tasks: Sequence[str],
    actor: Actor,
    judge: Judge | None = None,
    *,
    group_size: int = 1,
    stream: object = "play",
) -> list[Group]:
    """Play each task ``group_size`` times and, with a judge, reflect on every episode.

    ``stream`` names the randomness: the same stream, tasks and weights give the same episodes. Rollouts are
    numbered through, so a task may occur twice. Raises ConfigError for a group_size below 1, and for one text
    in the place of a list of tasks.
    """
    if isinstance(tasks, str):
        raise ConfigError(f"tasks is the text {tasks!r}; give a list of task ids, such as [{tasks!r}].")
    if group_size < 1:
        raise ConfigError(f"group_size is {group_size}; each task is played at least once.")
    requests = [
        RolloutRequest(task, index * group_size + k)
        for index, task in enumerate(tasks)
        for k in range(group_size)
    ]
    played = context.play(requests, actor, judge, PlayOptions(stream))
    return [
        Group(task, played[index * group_size : (index + 1) * group_size]) for index, task in enumerate(tasks)
    ]


__all__ = [
    "Actor",
    "Context",
    "EnvPool",
    "Judge",
    "PlayOptions",
    "RolloutRequest",
    "play",
    "read_trajectories",
    "reflect",
    "run_episodes",
    "trajectory_record",
    "write_trajectories",
]
