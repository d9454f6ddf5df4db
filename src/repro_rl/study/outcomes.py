"""Read what the runs of a study left: evaluations with their episodes, learning curves, cost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError
from repro_rl.rollout.record import read_trajectories

METRICS = ("success", "score")


@dataclass(slots=True)
class Result:
    """One evaluation of one run: its JSON, and the mean outcome of each task."""

    arm: str
    seed: int
    data: dict[str, Any]
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)  # metric -> task id -> mean, 0..1


@dataclass(slots=True)
class Curve:
    """Validations during a run, [n] each, and what the run cost in all."""

    arm: str
    seed: int
    env_steps: list[float]
    seconds: list[float]  # in iterations, without validations
    success: list[float]
    total_steps: float | None
    total_seconds: float | None
    iterations: int


def read_result(folder: Path, name: str, arm: str, seed: int) -> Result | None:
    """The evaluation ``name`` of a run, None when it is not there. Raises DataError for a broken file.

    Episodes that broke off count as lost, as they do in the evaluation's own success.
    """
    path = folder / "eval" / f"{name}.json"
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
        float(data["success"]), str(data["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"no evaluation ({error}); delete it and repeat the command.", file=path) from error
    result = Result(arm, seed, data)
    episodes = folder / "trajectories" / f"eval-{name}.jsonl.gz"
    if episodes.exists():
        sums: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for record in read_trajectories(episodes):
            sums[str(record["task_id"])].append((float(record["won"]), float(record["score"])))
        for place, metric in enumerate(METRICS):
            result.tasks[metric] = {
                task: sum(pair[place] for pair in pairs) / len(pairs) for task, pairs in sums.items()
            }
    return result


def read_curve(folder: Path, arm: str, seed: int) -> Curve:
    """The validations of a run; empty when it logged none. A half-written last line is left out."""
    rows: dict[float, dict[str, Any]] = {}
    path = folder / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            rows[row["iteration"]] = row
    ordered = [rows[key] for key in sorted(rows)]
    known = [row for row in ordered if all(k in row for k in ("eval/success", "env_steps", "seconds"))]
    last = ordered[-1] if ordered else {}
    return Curve(
        arm,
        seed,
        [float(row["env_steps"]) for row in known],
        [float(row["seconds"]) for row in known],
        [float(row["eval/success"]) for row in known],
        last.get("env_steps"),
        last.get("seconds"),
        len(ordered),
    )


def check_panel(results: Sequence[Result]) -> None:
    """All results of one table must rest on the same tasks, played alike. Raises DataError naming two."""
    for result in results[1:]:
        for key in ("digest", "tasks", "rollouts_per_task", "temperature", "seed"):
            first, other = results[0].data.get(key), result.data.get(key)
            if first != other:
                raise DataError(
                    f"{results[0].arm}, seed {results[0].seed} was evaluated with {key} {first!r}, "
                    f"{result.arm}, seed {result.seed} with {other!r}; these cannot stand in one table. "
                    "Repeat the evaluations with the same settings.",
                    field=key,
                )


def by_type(data: dict[str, Any]) -> dict[str, tuple[float, int | None]]:
    """Success and number of episodes for each task type, where the evaluation has them."""
    found: dict[str, tuple[float, int | None]] = {}
    types = data.get("by_type")
    for name, value in types.items() if isinstance(types, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("success"), int | float):
            episodes = value.get("episodes")
            found[str(name)] = (float(value["success"]), episodes if isinstance(episodes, int) else None)
        elif isinstance(value, int | float):
            found[str(name)] = (float(value), None)
    return found
