"""Episodes of a user's own, from files: played again in the environment, which says what they were.

A file holds JSON lines, one episode each (``OwnEpisode``). Observations, outcome and true progress come from
the environment, as in every other demonstration; what the file says of them is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from repro_rl.demos.annotators import anchored, is_percent, store_labels
from repro_rl.envs.base import TextEnv
from repro_rl.errors import DataError, did_you_mean
from repro_rl.files import check_record, json_lines, lines_of
from repro_rl.files.records import Flag, Text
from repro_rl.rollout.episode import play_actions
from repro_rl.types import Advice, Reflection, Status, Trajectory, no_completion

MAX_SHOWN = 60  # characters of an observation in a message


class OwnEpisode(TypedDict):
    """One line of a file: an episode of T steps."""

    task: Text  # id of the task
    actions: list[Text]  # [T], as the environment takes them; "" where the agent gave none
    progress: NotRequired[list[Any] | None]  # [T], after each action, 0..100; else ``demos.annotator``'s
    observations: NotRequired[list[Text]]  # [T], before each action; compared
    won: NotRequired[Flag]  # compared
    imitate: NotRequired[Flag]  # whether its actions are taught; else those of won episodes are


def own_episodes(
    env: TextEnv, files: Sequence[str], task_ids: Sequence[str]
) -> tuple[list[Trajectory], list[Trajectory]]:
    """The episodes to imitate, and the others, in the order of the files.

    Those with ``progress`` are labelled with it, corrected by the outcome as an annotator's labels are. An
    action that the environment refuses is never taught. Raises DataError naming file, line and field for
    what is missing, wrong or unknown, and where the environment shows another episode than the file. It does
    so too for a task that is not in ``task_ids``: it may be held out.
    """
    imitated: list[Trajectory] = []
    others: list[Trajectory] = []
    allowed = frozenset(task_ids)
    for file in map(Path, files):
        count = len(imitated) + len(others)
        for number, record in json_lines(file):
            line = _Line(file, number, record)
            line.check_fields()
            if record["task"] not in allowed:
                raise line.wrong(
                    f"{record['task']!r} is no task of demos.split, and may be held out; ids look like "
                    f"{task_ids[0]}",
                    "task",
                )
            trajectory = line.played(env)
            imitate = record.get("imitate", trajectory.won)
            line.label(trajectory, imitate)
            (imitated if imitate else others).append(trajectory)
        if count == len(imitated) + len(others):
            raise DataError("holds no episode; write one a line, a JSON object", file=file)
    return imitated, others


def episodes_digests(files: Sequence[str]) -> list[str]:
    """Of each file a sha256 of its lines, however they are compressed. Raises DataError."""
    digests = []
    for file in files:
        digest = hashlib.sha256()
        for line in lines_of(Path(file)):
            digest.update(line.text.rstrip() + b"\n")
        digests.append(digest.hexdigest())
    return digests


class _Line:
    """One line of a file."""

    def __init__(self, file: Path, number: int, record: dict[str, Any]):
        self.file, self.where, self.record = file, f"line {number}", record

    def wrong(self, message: str, field: str) -> DataError:
        return DataError(message, file=self.file, record=self.where, field=field)

    def check_fields(self) -> None:
        """Raises DataError for a field that is missing, wrong, unknown or of another length."""
        record, fields = self.record, list(OwnEpisode.__annotations__)
        for name in record:
            if name not in fields:
                raise self.wrong(f"is no field of an episode{did_you_mean(name, fields)}", name)
        check_record(OwnEpisode, record, file=self.file, record=self.where)
        steps = len(record["actions"])
        if not steps:
            raise self.wrong("is empty; an episode has one action or more", "actions")
        for name in ("progress", "observations"):
            values = record.get(name)
            if values is not None and len(values) != steps:
                raise self.wrong(f"{len(values)} values for {steps} actions; give one for each", name)
        for index, value in enumerate(record.get("progress") or ()):
            if not is_percent(value):
                raise self.wrong(
                    f"{value!r}; progress is a whole number of percent, 0 to 100", f"progress.{index}"
                )

    def played(self, env: TextEnv) -> Trajectory:
        """The episode, played again. Raises DataError where it is another one than the line says."""
        record = self.record
        actions = iter(record["actions"])
        trajectory = play_actions(env, record["task"], lambda info: next(actions, None))
        for index, (step, seen) in enumerate(
            zip(trajectory.steps, record.get("observations", ()), strict=False)
        ):
            if step.observation != seen:
                raise self.wrong(
                    f"the environment shows {_short(step.observation)} here, not {_short(seen)}; it must "
                    "have the env.settings that the episode was recorded with",
                    f"observations.{index}",
                )
        if trajectory.failed:
            raise self.wrong(f"played again, the episode fails: {trajectory.error}", "actions")
        over = len(record["actions"]) - trajectory.length
        if over:
            raise self.wrong(
                f"the episode ends with the action before this one; leave out the last {over}",
                f"actions.{trajectory.length}",
            )
        if record.get("won", trajectory.won) != trajectory.won:
            outcome = "won" if trajectory.won else "not won"
            raise self.wrong(f"is {record['won']!r}, but played again the episode is {outcome}", "won")
        if trajectory.status is Status.RUNNING:  # the agent stopped before the environment did
            trajectory.status = Status.TRUNCATED
        return trajectory

    def label(self, trajectory: Trajectory, imitate: bool) -> None:
        """Give the episode the labels of the line, if any, after marking what is not to be imitated."""
        for step in trajectory.steps if imitate else ():
            if not step.valid:
                step.advice = Advice("")
        if self.record.get("progress") is not None:
            values = anchored(trajectory, self.record["progress"], str(self.file))
            store_labels(trajectory, Reflection("", no_completion(), values, ()), "file")


def _short(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")
