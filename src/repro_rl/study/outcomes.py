"""Read what the runs of a study wrote: evaluations with their episodes, learning curves, cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError
from repro_rl.files import read_json, whole_rows
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


def read_evaluation(path: Path) -> dict[str, Any]:
    """The result of one evaluation. Raises DataError for a broken file."""
    advice = "; delete it and repeat the command"
    return read_json(path, "evaluation", {"success": (int, float), "digest": str}, advice)


def read_result(folder: Path, name: str, arm: str, seed: int) -> Result | None:
    """The evaluation ``name`` of a run, None when it is not there. Raises DataError for a broken file.

    Episodes that broke off count as lost, as they do in the evaluation's own success.
    """
    path = folder / "eval" / f"{name}.json"
    if not path.exists():
        return None
    result = Result(arm, seed, read_evaluation(path))
    episodes = folder / "trajectories" / f"eval-{name}.jsonl.gz"
    if episodes.exists():
        sums: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for record in read_trajectories(episodes):
            sums[str(record["task_id"])].append((float(record["won"]), float(record["score"])))
        for index, metric in enumerate(METRICS):
            result.tasks[metric] = {
                task: sum(pair[index] for pair in pairs) / len(pairs) for task, pairs in sums.items()
            }
    return result


def read_curve(folder: Path, arm: str, seed: int) -> Curve:
    """The validations of a run; empty when it logged none. A half-written last line is left out."""
    rows = {row.get("iteration"): row for row in whole_rows(folder / "metrics.jsonl")}
    ordered = [rows[key] for key in sorted(key for key in rows if isinstance(key, int))]
    validated = [row for row in ordered if all(k in row for k in ("eval/success", "env_steps", "seconds"))]
    last = ordered[-1] if ordered else {}
    return Curve(
        arm,
        seed,
        [float(row["env_steps"]) for row in validated],
        [float(row["seconds"]) for row in validated],
        [float(row["eval/success"]) for row in validated],
        last.get("env_steps"),
        last.get("seconds"),
        len(ordered),
    )


def check_panel(results: Sequence[Result]) -> None:
    """Check that all results of a table rest on the same tasks and settings. Raises DataError naming two."""
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


def type_results(data: dict[str, Any]) -> dict[str, tuple[float, int | None]]:
    """Success and number of episodes for each task type, where the evaluation has them."""
    result: dict[str, tuple[float, int | None]] = {}
    types = data.get("by_type")
    for name, value in types.items() if isinstance(types, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("success"), int | float):
            episodes = value.get("episodes")
            result[str(name)] = (float(value["success"]), episodes if isinstance(episodes, int) else None)
        elif isinstance(value, int | float):
            result[str(name)] = (float(value), None)
    return result
