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

    success: Share  # share of episodes won
    digest: Text  # of the panel's tasks
    key: NotRequired[Text]  # of the weights and settings it was made with
    panel: NotRequired[Text]  # its label
    tasks: NotRequired[Count]  # in the panel
    rollouts_per_task: NotRequired[Count]  # episodes played of each task
    temperature: NotRequired[Finite]  # of the sampling
    seed: NotRequired[Count]  # of the sampling
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
    try:
        check_record(EvaluationRecord, data)
        episodes, won = data.get("episodes"), data.get("won")
        if episodes and won is not None and abs(won / episodes - data["success"]) > ROUNDING:
            raise DataError(f"{won} of {episodes} episodes is not {data['success']}", field="success")
    except DataError as error:
        raise DataError(f"no evaluation ({error}){ADVICE}.", file=path) from error
    return data
