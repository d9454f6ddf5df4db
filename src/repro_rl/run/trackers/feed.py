"""The callback behind every tracker: sends each row once and in order, and survives what fails."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repro_rl.config import TrackingSection
from repro_rl.errors import counted
from repro_rl.files import check_record, finite, read_json_if_any, write_json
from repro_rl.run.callbacks import Callback, Row, RunInfo
from repro_rl.run.folder import flatten
from repro_rl.run.trackers.base import Table, TrackedRun, Tracker

KEYS_FILE = "trackers.json"  # in the run folder: the run's key in every tracker
LONGEST_PAUSE = 64  # rows between two attempts to reach a tracker that fails
NAME_PARTS = 3  # of the run folder's path, in the run's name
SHOWN = 600  # characters of a table's cell
COLUMNS = ("task", "rollout", "won", "score", "steps", "return", "progress", "goal", "actions", "reflection")


class TrackerCallback(Callback):
    """Sends a run to one tracker.

    ``metrics.jsonl`` is the truth, and a tracker is asked which rows it has. Those that it lacks are sent,
    also from before. Those that it has are not sent again, so a continued run is one curve. Where it fails,
    rows wait, and later ones try again, ever more seldom. Exceptions are left to ``Callbacks``.
    """

    def __init__(self, name: str, section: TrackingSection, opener: Callable[[str], Tracker]):
        self.name, self.section, self.opener = name, section, opener
        self.tracker: Tracker | None = None  # once it is open
        self.run: TrackedRun | None = None
        self.rows: list[Row] = []  # that are not sent yet, in order
        self.tables: dict[int, Table] = {}  # not sent yet, by iteration
        self.sent = 0  # the last iteration that the tracker has
        self.failures = 0  # in a row
        self.wait = 0  # rows to let pass before the next attempt

    def on_start(self, run: RunInfo) -> None:
        """Open the tracker, and send the rows of earlier commands that it lacks."""
        self.rows = list(run.rows)
        self.run = tracked_run(self.name, self.section, run)
        self._send()

    def on_episodes(self, iteration: int, episodes: Sequence[Row]) -> None:
        """Keep a sample for the table of this iteration."""
        count = self.section.episodes
        if count and (iteration == 1 or iteration % self.section.episodes_every == 0):
            self.tables[iteration] = episode_table(episodes, count)

    def on_row(self, row: Row) -> None:
        """Send the row, after those that wait."""
        self.rows.append(row)
        if self.wait:
            self.wait -= 1
            return
        self._send()

    def on_end(self, error: BaseException | None) -> None:
        """Send what waits and close the run there. Raises RuntimeError when rows were not sent."""
        problem: Exception | None = None
        try:
            self._send()
        except Exception as failure:
            problem = failure
        if self.tracker is not None:
            outcome = (
                "interrupted" if isinstance(error, KeyboardInterrupt) else "failed" if error else "finished"
            )
            tracker, self.tracker = self.tracker, None
            tracker.close(outcome)
        if self.rows:
            reason = "" if problem is None else f": {type(problem).__name__}: {problem}"
            raise RuntimeError(
                f"{counted(len(self.rows), 'row')} not sent{reason}. They are in metrics.jsonl, and "
                "repeating the command sends them"
            ) from problem

    def _send(self) -> None:
        """Send every row that the tracker lacks, in order. Raises what the tracker raises."""
        try:
            if self.tracker is None:
                self._open()
            tracker = self.tracker
            while tracker is not None and self.rows:
                iteration = int(self.rows[0]["iteration"])
                if iteration > self.sent:
                    table = self.tables.get(iteration)
                    tracker.add(
                        iteration, numbers(self.rows[0]), {} if table is None else {"episodes": table}
                    )
                    self.sent = iteration
                self.tables.pop(iteration, None)
                del self.rows[0]
        except Exception:
            self.failures += 1
            self.wait = min(2**self.failures, LONGEST_PAUSE) - 1
            raise
        self.failures = 0

    def _open(self) -> None:
        if self.run is None:
            return
        tracker = self.opener(self.name)
        self.sent = tracker.open(self.run)
        self.tracker = tracker


def tracked_run(name: str, section: TrackingSection, run: RunInfo) -> TrackedRun:
    """What a tracker is told; its key is kept in the run folder. Raises DataError for a broken file there."""
    path = run.folder / KEYS_FILE
    keys = check_record(dict[str, str], read_json_if_any(path), file=path)
    if name not in keys or not run.continues:  # the other trackers have theirs in the same file
        keys[name] = secrets.token_hex(8)
        write_json(path, keys)
    return TrackedRun(
        folder=run.folder,
        project=section.project,
        name=section.name or run_name(run.folder),
        key=keys[name],
        stage=run.stage,
        settings=flatten(dict(run.settings)),
        iteration=run.iteration,
        offline=section.offline,
        address=section.address,
    )


def run_name(folder: Path) -> str:
    """The end of the run folder's path: ``study/repro/seed0`` of ``runs/study/runs/repro/seed0``."""
    return "/".join([part for part in folder.parts if part not in ("runs", folder.anchor)][-NAME_PARTS:])


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a row that are numbers, by their names; booleans and what is not finite are left out."""
    return {name: float(value) for name, value in row.items() if finite(value)}


def episode_table(episodes: Sequence[Row], count: int) -> Table:
    """``count`` of the episodes, evenly spaced, as ``COLUMNS``."""
    step = max(1, len(episodes) // count)
    return Table(COLUMNS, tuple(_line(record) for record in list(episodes)[::step][:count]))


def _line(record: Row) -> tuple[str | int | float | None, ...]:
    reflection = record["reflection"] or {}
    values = reflection.get("values")
    actions = "; ".join(step["action"] or "(none)" for step in record["steps"])
    return (
        record["task_id"],
        record["rollout"],
        "yes" if record["won"] else "no",
        record["score"],
        len(record["steps"]),
        record["return"],
        "" if values is None else " ".join(map(str, values)),
        _short(record["goal"]),
        _short(actions),
        _short(reflection.get("text") or ""),
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
