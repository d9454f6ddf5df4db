"""Read what the runs of a study wrote: evaluations with their episodes, learning curves, cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.errors import DataError
from repro_rl.files import check_record, whole_rows
from repro_rl.files.names import METRICS_FILE
from repro_rl.files.records import Finite, Share
from repro_rl.rollout.record import episodes_file, numbered_records
from repro_rl.run.evaluations import differing_condition, evaluation_file, read_evaluation

METRICS = ("success", "score")


# The fields of a row of metrics that a curve is made of.
_Row = TypedDict("_Row", {"env_steps": Finite, "seconds": Finite, "validation/success": Share}, total=False)


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
    path = evaluation_file(folder, name)
    if not path.exists():
        return None
    result = Result(arm, seed, read_evaluation(path))
    episodes = episodes_file(folder, name)
    if episodes.exists():
        sums: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for where, record in numbered_records(episodes):
            for name_of in ("task_id", "won", *METRICS[1:]):
                if name_of not in record:
                    raise DataError("is missing", file=episodes, record=where, field=name_of)
            sums[str(record["task_id"])].append((float(record["won"]), float(record["score"])))
        _check_wins(result, episodes, sum(won for pairs in sums.values() for won, _ in pairs))
        for index, metric in enumerate(METRICS):
            result.tasks[metric] = {
                task: sum(pair[index] for pair in pairs) / len(pairs) for task, pairs in sums.items()
            }
    return result


def _check_wins(result: Result, episodes: Path, won: float) -> None:
    """Raises DataError where the recorded episodes have other wins than the evaluation counted."""
    counted = result.data.get("won")
    if counted not in (None, won):
        raise DataError(
            f"{won:g} episodes were won, its evaluation counted {counted}; one of the two files is of "
            "another evaluation. Delete both and repeat it",
            file=episodes,
        )


def read_curve(folder: Path, arm: str, seed: int) -> Curve:
    """The validations of a run; empty when it logged none. A half-written last line is left out."""
    path = folder / METRICS_FILE
    rows = {row["iteration"]: row for row in whole_rows(path)}
    ordered = [rows[key] for key in sorted(rows)]
    for row in ordered:
        check_record(_Row, row, file=path, record=f"iteration {row['iteration']}")
    validated = [
        row for row in ordered if all(k in row for k in ("validation/success", "env_steps", "seconds"))
    ]
    last = ordered[-1] if ordered else {}
    return Curve(
        arm,
        seed,
        [float(row["env_steps"]) for row in validated],
        [float(row["seconds"]) for row in validated],
        [float(row["validation/success"]) for row in validated],
        last.get("env_steps"),
        last.get("seconds"),
        len(ordered),
    )


def check_panel(results: Sequence[Result]) -> None:
    """Check that all results of a table rest on the same tasks and settings. Raises DataError naming two."""
    for result in results[1:]:
        key = differing_condition(results[0].data, result.data)
        if key is not None:
            first, other = results[0].data.get(key), result.data.get(key)
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
