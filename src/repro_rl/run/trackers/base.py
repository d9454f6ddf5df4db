"""What a tracker is: something that takes the rows of one run, and knows which it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(slots=True, frozen=True)
class TrackedRun:
    """The run as a tracker is told of it."""

    folder: Path  # the run folder
    project: str
    name: str
    key: str  # of the run in the tracker: the same for all commands that continue it, else new
    stage: str  # "warmup" or "train"
    settings: Mapping[str, Any]  # dotted name -> value
    iteration: int  # the last one whose row stands
    offline: bool
    address: str | None


@dataclass(slots=True, frozen=True)
class Table:
    """Sample episodes, one row each."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]

    def markdown(self) -> str:
        """For trackers without tables. Line breaks and bars are replaced."""
        lines = ["|".join(self.columns), "|".join("---" for _ in self.columns)]
        lines += ["|".join(map(_cell, row)) for row in self.rows]
        return "\n".join(f"|{line}|" for line in lines)


def _cell(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


class Tracker(Protocol):
    """One run in a tracker. Every method may raise whatever the package raises."""

    def open(self, run: TrackedRun) -> int:
        """Begin the run, or continue the one with this key. Returns the last iteration it keeps; 0: none.

        A tracker that can take rows back keeps those up to ``run.iteration``.
        """

    def add(self, iteration: int, metrics: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        """One row: all of it or, after an exception, nothing. ``iteration``: the step."""

    def close(self, outcome: str) -> None:
        """The run is over: "finished", "failed" or "interrupted". What was sent must be kept."""
