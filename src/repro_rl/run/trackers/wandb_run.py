"""Weights & Biases, on its server or, offline, in the run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from repro_rl.run.trackers.base import Table, TrackedRun
from repro_rl.run.trackers.wandb_file import history

INIT_TIMEOUT = 60.0  # seconds that its server has to answer


class RunTracker:
    """One run, continued by its id. Its rows cannot be taken back; those it has are not sent again."""

    def __init__(self) -> None:
        import wandb

        self._wandb = wandb
        self._run: Any = None

    def open(self, run: TrackedRun) -> int:
        """See ``Tracker.open``. Raises RuntimeError where it would ask for an account on the terminal."""
        mode = "offline" if run.offline else os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not self._wandb.api.api_key:
            raise RuntimeError(
                "no account is known here; run 'wandb login', or set train.tracking.offline=true"
            )
        self._run = self._wandb.init(
            project=run.project,
            name=run.name,
            id=run.key,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.settings),
            job_type=run.stage,
            mode=mode,
            settings=self._wandb.Settings(console="off", silent=True, init_timeout=INIT_TIMEOUT),
        )
        if mode != "online":
            rows = history(run.folder / "wandb", run.key)
            return max((row["_step"] for row in rows), default=0)
        return int(self._run.starting_step) - 1 if self._run.resumed else 0

    def add(self, iteration: int, metrics: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        """See ``Tracker.add``."""
        made = {
            name: self._wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
            for name, table in tables.items()
        }
        self._run.log({**metrics, **made}, step=iteration)

    def close(self, outcome: str) -> None:
        """See ``Tracker.close``."""
        self._run.finish(exit_code=0 if outcome == "finished" else 1)
