"""Trajectories as JSON lines: everything a later analysis, report or re-scoring needs."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from repro_rl.files import check_record, json_lines, write_bytes
from repro_rl.files.names import RECORDS, TRAJECTORIES
from repro_rl.rollout.record_schema import TrajectoryRecord
from repro_rl.types import Completion, Status, Trajectory


def _completion_fields(completion: Completion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "prompt_tokens": completion.prompt_tokens,
        "tokens": completion.tokens,
        "finished": completion.finished,
    }


def or_null(value: float) -> float | None:
    """JSON has no NaN and no infinity: null, so that the rest of the episode can be read."""
    return value if math.isfinite(value) else None


def or_nan(value: float | None) -> float:
    """What ``or_null`` has written; NaN for null."""
    return math.nan if value is None else float(value)


def _terms(terms: Mapping[str, float]) -> dict[str, float | None]:
    return {name: or_null(value) for name, value in terms.items()}


def trajectory_record(trajectory: Trajectory, iteration: int) -> dict[str, Any]:
    """The JSON object of one episode. ``truth`` is 0..1; progress integers are 0..100.

    Terms, advantages and entropies that are not finite are null.
    """
    reflection = trajectory.reflection
    return {
        "iteration": iteration,
        "task_id": trajectory.task_id,
        "rollout": trajectory.rollout,
        "goal": trajectory.goal,
        "won": trajectory.won,
        "score": trajectory.score,
        "status": trajectory.status.value,
        "truncated": trajectory.truncated,
        "context_full": trajectory.status is Status.CONTEXT_FULL,
        "error": trajectory.error,
        "return": trajectory.env_return,
        "final_observation": trajectory.final_observation,
        "steps": [
            {
                "t": step.t,
                "observation": step.observation,
                "brief": step.brief,
                "anchor": str(step.anchor),
                "reached": None if step.reached is None else str(step.reached),
                "prompt": step.prompt,
                **_completion_fields(step.completion),
                "action": step.action,
                "online": step.online,
                "defects": list(step.defects),
                "valid": step.valid,
                "feedback": step.feedback,
                "env_reward": step.env_reward,
                "truth": step.truth,
                "terms": _terms(step.terms),
                "advantage": or_null(step.advantage),
                "entropy": or_null(step.completion.entropy),
                **({} if step.advice is None else {"advice": asdict(step.advice)}),
            }
            for step in trajectory.steps
        ],
        "reflection": None
        if reflection is None
        else {
            "prompt": reflection.prompt,
            **_completion_fields(reflection.completion),
            "values": None if reflection.values is None else list(reflection.values),
            "defects": list(reflection.defects),
            "terms": _terms(reflection.terms),
            "advantage": or_null(reflection.advantage),
        },
    }


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, gzipped, whole or not at all. Equal records give equal bytes."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_bytes(path, gzip.compress(lines.encode(), compresslevel=3, mtime=0))


def write_trajectories(path: str | Path, trajectories: Iterable[Trajectory], iteration: int = 0) -> None:
    """Write trajectories as gzipped JSON lines, whole or not at all.

    ``iteration``: of training, as the records tell it; 0 outside training.
    """
    write_records(Path(path), (trajectory_record(trajectory, iteration) for trajectory in trajectories))


def training_file(run: Path, iteration: int) -> Path:
    """Where a run keeps the training episodes of an iteration."""
    return run / TRAJECTORIES / f"iteration-{iteration:05d}{RECORDS}"


def training_files(run: Path) -> list[Path]:
    """The files of recorded training episodes in a run's folder, in the order of the iterations."""
    return sorted((run / TRAJECTORIES).glob(f"iteration-*{RECORDS}"))


def episodes_file(run: Path, name: str) -> Path:
    """Where a run keeps the episodes of the evaluation ``name``."""
    return run / TRAJECTORIES / f"eval-{name}{RECORDS}"


def read_trajectories(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file written here, their fields checked where they have them.

    Raises DataError naming file, line and field; also for a file that is empty or cut off.
    """
    for _, record in numbered_records(Path(path)):
        yield record


def numbered_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """As ``read_trajectories``, each record with its place, such as "line 3"."""
    for number, record in json_lines(path, packed=True):
        check_record(TrajectoryRecord, record, file=path, record=f"line {number}")
        yield f"line {number}", record
