"""Demonstrations on disk, in the trajectory record format, and back."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro_rl.config.paths import base_of, rebased
from repro_rl.errors import DataError
from repro_rl.files import read_json
from repro_rl.files.names import DEMOS_FILE, EXPERT_FILE, LABELLED_FILE
from repro_rl.rollout.record import numbered_records, write_trajectories
from repro_rl.types import Advice, Reflection, Status, Step, Trajectory, no_completion

# Fields of a step that are read as they were written.
STEP_FIELDS = (
    *("t", "observation", "brief", "anchor", "prompt", "action", "online", "valid", "env_reward", "truth"),
    *("feedback", "advantage"),
)


def save_demos(folder: str | Path, experts: Sequence[Trajectory], labelled: Sequence[Trajectory]) -> None:
    """Write both sets as gzipped JSON lines, each file whole or not at all."""
    folder = Path(folder)
    write_trajectories(folder / LABELLED_FILE, labelled, iteration=0)
    write_trajectories(folder / EXPERT_FILE, experts, iteration=0)


def load_demos(folder: str | Path) -> tuple[list[Trajectory], list[Trajectory]]:
    """Read what save_demos wrote: expert episodes, labelled episodes.

    Raises DataError naming file, record and field.
    """
    paths = [Path(folder) / name for name in (EXPERT_FILE, LABELLED_FILE)]
    for path in paths:
        if not path.exists():
            raise DataError("no such file; make it with 'repro-rl demos'", file=path)
    experts, labelled = map(read_episodes, paths)
    return experts, labelled


def demos_digest(folder: Path) -> str:
    """sha256 over the episodes in ``folder``, however they are compressed; call ``load_demos`` before."""
    digest = hashlib.sha256()
    for name in (EXPERT_FILE, LABELLED_FILE):
        with gzip.open(folder / name, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def has_digest(folder: Path, digest: str | None) -> bool:
    """Whether ``folder`` holds demonstrations with this digest; False where they cannot be read."""
    try:
        return demos_digest(folder) == digest
    except (OSError, EOFError, zlib.error):
        return False


def made_with(folder: Path) -> dict[str, Any] | None:
    """The settings that the demonstrations in ``folder`` were made with; None where they were made elsewhere.

    Their paths are those that this process must open. Raises DataError for a broken demos.json.
    """
    path = folder / DEMOS_FILE
    if not path.exists():
        return None
    settings: dict[str, Any] = read_json(path, "settings of demonstrations", {"settings": dict})["settings"]
    return rebased(settings, base_of(folder, DEMOS_FILE), Path.cwd())


def read_episodes(path: Path) -> list[Trajectory]:
    """The episodes of one file of trajectory records. Raises DataError naming file, record and field."""
    demos = []
    for where, record in numbered_records(path):
        try:
            episode = trajectory_from_record(record)
        except KeyError as error:
            raise DataError("is missing", file=path, record=where, field=str(error.args[0])) from error
        except (TypeError, ValueError) as error:
            raise DataError(f"cannot be read: {error}", file=path, record=where) from error
        _check_order(episode, path, where)
        demos.append(episode)
    return demos


def _check_order(episode: Trajectory, path: Path, where: str) -> None:
    """Raises DataError unless the steps are numbered 1..T, and the reflection has T values."""
    if [step.t for step in episode.steps] != list(range(1, episode.length + 1)):
        raise DataError(
            f"the steps are not numbered 1 to {episode.length}", file=path, record=where, field="steps"
        )
    values = None if episode.reflection is None else episode.reflection.values
    if values is not None and len(values) != episode.length:
        raise DataError(
            f"{len(values)} values for {episode.length} steps",
            file=path,
            record=where,
            field="reflection.values",
        )


def is_labelled(trajectory: Trajectory) -> bool:
    """False for an episode that its annotator left unlabelled, naming the defects."""
    reflection = trajectory.reflection
    return reflection is None or reflection.values is not None or not reflection.defects


def trajectory_from_record(record: dict[str, Any]) -> Trajectory:
    """A Trajectory without token ids: records keep texts and counts.

    Raises KeyError for a missing field, TypeError or ValueError for a value that cannot be read.
    """
    nothing = no_completion()
    reflection = record["reflection"]
    return Trajectory(
        task_id=record["task_id"],
        rollout=record["rollout"],
        goal=record["goal"],
        steps=[
            Step(
                **{name: step[name] for name in STEP_FIELDS},
                completion=nothing,
                defects=tuple(step["defects"]),
                reached=step.get("reached"),  # records of older versions lack it
                terms=dict(step["terms"]),
                advice=None if step.get("advice") is None else Advice(**step["advice"]),
            )
            for step in record["steps"]
        ],
        won=record["won"],
        score=record["score"],
        status=_status(record),
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


def _status(record: dict[str, Any]) -> Status:
    """How the episode ended; records of older versions hold three fields instead."""
    if "status" in record:
        return Status(record["status"])
    if record["error"] is not None:
        return Status.FAILED
    if record.get("context_full"):
        return Status.CONTEXT_FULL
    return Status.TRUNCATED if record["truncated"] else Status.TERMINATED
