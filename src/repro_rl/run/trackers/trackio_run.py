"""Trackio: a database of this account, or a Space (TRACKIO_SPACE_ID); ``trackio show``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from repro_rl.run.trackers.base import Table, TrackedRun

LETTERS = 6  # of the key, in the name: runs are told apart by their names


class RunTracker:
    """One run, continued by its name. Its rows cannot be taken back; those it has are not sent again."""

    def __init__(self) -> None:
        import trackio

        self._trackio = trackio
        self._run: Any = None

    def open(self, run: TrackedRun) -> int:
        """See ``Tracker.open``."""
        with redirect_stdout(StringIO()):  # it prints advice between the lines of a progress bar
            self._run = self._trackio.init(
                project=run.project,
                name=f"{run.name}-{run.key[:LETTERS]}",
                group=run.stage,
                config=dict(run.settings),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        return max(int(self._run._next_step) - 1, 0)  # there is no public name for it

    def add(self, iteration: int, metrics: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        """See ``Tracker.add``."""
        made = {
            name: self._trackio.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
            for name, table in tables.items()
        }
        self._run.log({**metrics, **made}, step=iteration)

    def close(self, outcome: str) -> None:
        """See ``Tracker.close``."""
        with redirect_stdout(StringIO()):
            self._run.finish()
