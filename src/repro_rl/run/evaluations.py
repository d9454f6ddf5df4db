"""The results of a run folder's evaluations, ``eval/<name>.json``: their order, and what one must hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from repro_rl.errors import DataError
from repro_rl.files import check_record, read_json
from repro_rl.files.names import EVALUATIONS
from repro_rl.files.records import Count, Finite, Share, Text

ADVICE = "; delete it and repeat the command"
ROUNDING = 1e-9  # between a share and the quotient of its counts
# Names of evaluations before any training, and of those of the checkpoints that a training ends with.
STARTS = ("warm-start", "warmup", "start", "initial", "base")
ENDS = ("best", "last", "final")
# What two evaluations must share, so that a task is the same task in both.
CONDITIONS = ("digest", "tasks", "rollouts_per_task", "temperature", "seed", "max_steps")
UNTOLD = ("max_steps",)  # those that older files do not tell: unknown, not different


class TypeResult(TypedDict):
    """Success on the tasks of one type."""

    success: Share
    episodes: NotRequired[Count]


class EvaluationRecord(TypedDict):
    """The fields that tables and comparisons read; older files lack some."""

    success: Share  # share of episodes won
    digest: Text  # of the panel's tasks
    key: NotRequired[Text]  # of the weights and settings it was made with
    panel: NotRequired[Text]  # its label
    tasks: NotRequired[Count]  # in the panel
    rollouts_per_task: NotRequired[Count]  # episodes played of each task
    max_steps: NotRequired[Count]  # the environment's limit
    temperature: NotRequired[Finite]  # of the sampling
    seed: NotRequired[Count]  # of the sampling
    dtype: NotRequired[Text | None]  # in which the model computed; null: behind an API, or unknown
    versions: NotRequired[dict[Text, Text | None] | None]  # of the packages that made it; null: not installed
    episodes: NotRequired[Count]  # played in all
    won: NotRequired[Count]  # of the episodes
    low: NotRequired[Share]  # end of the Wilson interval of ``success``
    high: NotRequired[Share]  # its other end
    score: NotRequired[Finite]  # mean over the episodes
    length: NotRequired[Finite | None]  # mean steps of an episode
    invalid_rate: NotRequired[Share | None]  # share of steps whose action was refused
    format_rate: NotRequired[Share | None]  # share of answers in the requested format
    errors: NotRequired[Finite | None]  # episodes that broke off
    unanswered: NotRequired[Count]  # episodes that a server ended
    by_type: NotRequired[dict[Text, TypeResult | Share] | None]  # of each task type; null: no types
    # Reported series -> measure of ``progress_quality`` -> its value; null: undefined.
    progress: NotRequired[dict[Text, dict[Text, Finite | None]] | None]
    demonstrations: NotRequired[dict[Text, Count] | None]  # steps by what was shown


def read_evaluation(path: Path) -> dict[str, Any]:
    """The result of one evaluation.

    Raises DataError naming file and field for a broken file, and for counts that do not give its success.
    """
    data = read_json(path, "evaluation", advice=ADVICE)
    if isinstance(data, dict) and "failures" in data:  # the name in version 0.1.0
        data["error_reasons"] = data.pop("failures")
    try:
        check_record(EvaluationRecord, data)
        episodes, won = data.get("episodes"), data.get("won")
        if episodes and won is not None and abs(won / episodes - data["success"]) > ROUNDING:
            raise DataError(f"{won} of {episodes} episodes is not {data['success']}", field="success")
    except DataError as error:
        raise DataError(f"no evaluation ({error}){ADVICE}.", file=path) from error
    return data


def evaluation_file(run: Path, name: str) -> Path:
    """Where a run keeps the result of the evaluation ``name``."""
    return run / EVALUATIONS / f"{name}.json"


def evaluation_files(run: Path) -> list[Path]:
    """The results that a run folder has, by name."""
    return sorted((run / EVALUATIONS).glob("*.json"))


def evaluation_order(name: str) -> int:
    """Sorts evaluations for people: those before training, others, then the checkpoints it ended with."""
    if name in STARTS:
        return -1
    return 1 + ENDS.index(name) if name in ENDS else 0


def dtype_notes(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for results in one table that were computed in several precisions; [] for one.

    Older files and those of API models tell none.
    """
    dtypes = sorted({str(result["dtype"]) for result in results if result.get("dtype")})
    if len(dtypes) < 2:
        return []
    return [
        f"These evaluations were computed in {' and '.join(dtypes)}: part of a difference between them may "
        "be rounding. policy.dtype sets one for all."
    ]


def differing_condition(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first of CONDITIONS in which two results differ: their figures do not compare. None: they do."""
    for key in CONDITIONS:
        told = key not in UNTOLD or None not in (one.get(key), other.get(key))
        if told and one.get(key) != other.get(key):
            return key
    return None
