"""What an environment says, as records: the one place where observations and ``info`` become a Trajectory."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from repro_rl.types import Completion, Step, Trajectory


def begin_trajectory(task_id: str, rollout: int, observation: str, info: dict[str, Any]) -> Trajectory:
    """An episode without steps, from what ``reset`` returned."""
    return Trajectory(
        task_id=task_id,
        rollout=rollout,
        goal=info["goal"],
        steps=[],
        won=bool(info["won"]),
        score=float(info["score"]),
        truncated=False,
        final_observation=observation,
    )


def with_completions(trajectory: Trajectory, change: Callable[[Completion], Completion]) -> Trajectory:
    """A copy whose steps and reflection hold ``change`` of their completions."""
    reflection = trajectory.reflection
    return replace(
        trajectory,
        steps=[replace(step, completion=change(step.completion)) for step in trajectory.steps],
        reflection=None
        if reflection is None
        else replace(reflection, completion=change(reflection.completion)),
    )


def add_step(
    trajectory: Trajectory,
    result: tuple[str, Any, bool, bool, dict[str, Any]],
    *,
    before: str,
    anchor: Hashable,
    action: str,
    completion: Completion,
    prompt: str = "",
    online: int | None = None,
    defects: tuple[str, ...] = (),
    shortened: str = "",
) -> bool:
    """Append the step whose ``env.step`` returned ``result``; True when it ended the episode.

    ``before`` and ``anchor`` belong to the state the action was chosen in.
    """
    observation, reward, terminated, truncated, info = result
    trajectory.steps.append(
        Step(
            t=len(trajectory.steps) + 1,
            observation=before,
            brief=str(info.get("brief", observation)),
            anchor=anchor,
            prompt=prompt,
            completion=completion,
            action=action,
            online=online,
            defects=defects,
            valid=bool(info["valid"]),
            env_reward=float(reward),
            truth=None if info["progress"] is None else float(info["progress"]),
            feedback=observation,
            shortened=shortened,
            reached=info.get("anchor"),
        )
    )
    trajectory.won, trajectory.score = bool(info["won"]), float(info["score"])
    trajectory.truncated = bool(truncated and not terminated)
    trajectory.final_observation = observation
    return bool(terminated or truncated)
