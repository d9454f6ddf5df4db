"""The file of one evaluation, ``eval/<name>.json``, checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from repro_rl.errors import DataError
from repro_rl.files import check_record, read_json
from repro_rl.files.records import Count, Finite, Share, Text

ADVICE = "; delete it and repeat the command"
ROUNDING = 1e-9  # between a share and the quotient of its counts


class TypeResult(TypedDict):
    """Success on the tasks of one type."""

    success: Share
    episodes: NotRequired[Count]


class EvaluationRecord(TypedDict):
    """The fields that tables and comparisons read; older files lack some."""

    success: Share
    digest: Text
    key: NotRequired[Text]  # of the weights and settings it was made with
    panel: NotRequired[Text]
    tasks: NotRequired[Count]
    rollouts_per_task: NotRequired[Count]
    temperature: NotRequired[Finite]
    seed: NotRequired[Count]
    episodes: NotRequired[Count]
    won: NotRequired[Count]
    low: NotRequired[Share]
    high: NotRequired[Share]
    score: NotRequired[Finite]
    length: NotRequired[Finite | None]
    invalid_rate: NotRequired[Share | None]
    format_rate: NotRequired[Share | None]
    errors: NotRequired[Finite | None]
    unanswered: NotRequired[Count]  # episodes that a server ended
    by_type: NotRequired[dict[Text, TypeResult | Share] | None]
    progress: NotRequired[dict[Text, dict[Text, Finite | None]] | None]
    demonstrations: NotRequired[dict[Text, Count] | None]


def read_evaluation(path: Path) -> dict[str, Any]:
    """The result of one evaluation.

    Raises DataError naming file and field for a broken file, and for counts that do not give its success.
    """
    data = read_json(path, "evaluation", advice=ADVICE)
    try:
        check_record(EvaluationRecord, data)
        episodes, won = data.get("episodes"), data.get("won")
        if episodes and won is not None and abs(won / episodes - data["success"]) > ROUNDING:
            raise DataError(f"{won} of {episodes} episodes is not {data['success']}", field="success")
    except DataError as error:
        raise DataError(f"no evaluation ({error}){ADVICE}.", file=path) from error
    return data
