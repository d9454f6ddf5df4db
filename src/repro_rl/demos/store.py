"""Demonstrations on disk, in the trajectory record format, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError
from repro_rl.rollout.record import read_trajectories, write_trajectories
from repro_rl.types import Reflection, Step, Trajectory, no_completion

EXPERT_FILE, LABELLED_FILE = "expert.jsonl.gz", "labelled.jsonl.gz"


def save_demos(folder: Path, experts: Sequence[Trajectory], labelled: Sequence[Trajectory]) -> None:
    """Write both sets as gzipped JSON lines, each file whole or not at all."""
    write_trajectories(folder / LABELLED_FILE, labelled, iteration=0)
    write_trajectories(folder / EXPERT_FILE, experts, iteration=0)


def load_demos(folder: Path) -> tuple[list[Trajectory], list[Trajectory]]:
    """Read what save_demos wrote: expert episodes, labelled episodes.

    Raises DataError naming file, record and field.
    """
    return _load(folder / EXPERT_FILE), _load(folder / LABELLED_FILE)


def _load(path: Path) -> list[Trajectory]:
    if not path.exists():
        raise DataError("no such file; make it with 'repro-rl demos'", file=path)
    demos = []
    for number, record in enumerate(read_trajectories(path), start=1):
        try:
            demos.append(trajectory_from_record(record))
        except (KeyError, TypeError) as error:
            raise DataError(
                "is missing or of the wrong type", file=path, record=f"line {number}", field=str(error)
            ) from error
    return demos


def labels_of(trajectory: Trajectory) -> tuple[int, ...]:
    """P_1..P_T of a labelled episode. Raises DataError without T of them."""
    values = trajectory.reflection.values if trajectory.reflection is not None else None
    if values is None or len(values) != len(trajectory.steps):
        raise DataError(
            f"{len(values or ())} labels for {len(trajectory.steps)} steps; annotate the demonstrations "
            "again",
            record=trajectory.task_id,
            field="reflection.values",
        )
    return values


def trajectory_from_record(record: dict[str, Any]) -> Trajectory:
    """A Trajectory without token ids (records keep texts and counts). Raises KeyError for a missing field."""
    nothing = no_completion()
    reflection = record["reflection"]
    return Trajectory(
        task_id=record["task_id"],
        rollout=record["rollout"],
        goal=record["goal"],
        steps=[
            Step(
                t=step["t"],
                observation=step["observation"],
                brief=step["brief"],
                anchor=step["anchor"],
                prompt=step["prompt"],
                completion=nothing,
                action=step["action"],
                online=step["online"],
                defects=tuple(step["defects"]),
                valid=step["valid"],
                env_reward=step["env_reward"],
                truth=step["truth"],
                feedback=step["feedback"],
                reached=step.get("reached"),  # records of older versions lack it
                terms=dict(step["terms"]),
                advantage=step["advantage"],
            )
            for step in record["steps"]
        ],
        won=record["won"],
        score=record["score"],
        truncated=record["truncated"],
        final_observation=record["final_observation"],
        reflection=None
        if reflection is None
        else Reflection(
            prompt=reflection["prompt"],
            completion=nothing,
            values=None if reflection["values"] is None else tuple(reflection["values"]),
            defects=tuple(reflection["defects"]),
        ),
        error=record["error"],
    )
