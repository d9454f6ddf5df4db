"""Steps, episodes and groups, short to write, for the tests of credit."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

from repro_rl.types import Group, Reflection, Status, Step, Trajectory, no_completion


def step(
    t: int, *, online: int | None = None, reward: float = 0.0, anchor: Hashable = "s", **kw: object
) -> Step:
    fields: dict[str, object] = {"action": "go", "defects": (), "valid": True, "truth": None} | kw
    return Step(
        t=t,
        observation="",
        brief="",
        anchor=anchor,
        prompt="",
        completion=no_completion(),
        online=online,
        env_reward=reward,
        **fields,  # type: ignore[arg-type]
    )


def episode(
    steps: list[Step],
    *,
    won: bool = False,
    score: float = 0.0,
    values: Sequence[int] | None = None,
    error: str | None = None,
) -> Trajectory:
    """A finished episode; with ``error`` it failed, with ``values`` it has a reflection."""
    reflection = None if values is None else Reflection("", no_completion(), tuple(values), ())
    status = Status.TERMINATED if won else Status.TRUNCATED
    trajectory = Trajectory("task", 0, "goal", steps, won, score, status, reflection=reflection)
    if error is not None:
        trajectory.fail(error)
    return trajectory


def two_rollouts() -> list[Group]:
    """One task: a win of 10 in two steps, and a loss in two steps of which the second is invalid."""
    won = episode([step(1), step(2, reward=10.0)], won=True, score=1.0, values=(50, 80))
    lost = episode([step(1), step(2, valid=False)], values=(50, 10))
    return [Group("task", [won, lost])]


def advantages(groups: Sequence[Group]) -> list[float]:
    """Of every step, in order."""
    return [step.advantage for group in groups for t in group.trajectories for step in t.steps]


def judged_walk(
    states: list[str | None], values: list[int] | None, *, won: bool = False, error: str | None = None
) -> Trajectory:
    """An episode through the states s_0..s_T (None: not known) with a reflection's values, one a step."""
    steps = [
        Step(t + 1, "", "", before, "", no_completion(), "go", None, (), True, 0.0, None, reached=after)
        for t, (before, after) in enumerate(itertools.pairwise(states))
    ]
    reflection = None if values is None else Reflection("", no_completion(), tuple(values), ())
    trajectory = Trajectory("task", 0, "", steps, won, 0.0, Status.TERMINATED, reflection=reflection)
    if error is not None:
        trajectory.fail(error)
    return trajectory
