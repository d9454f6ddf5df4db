"""TensorBoard: event files in the run folder, ``tensorboard --logdir runs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro_rl.run.trackers.base import Table, TrackedRun

FOLDER = "tensorboard"  # in the run folder
LAST = "iteration"  # written behind all other metrics of a row: a row that has it is whole


class RunTracker:
    """Writes scalars, settings and sample episodes as text.

    Event files cannot be changed, but a reader drops what stands before a file that says from which step it
    goes on. So rows that are trained on again replace the earlier ones.
    """

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open: Any = SummaryWriter
        self._writer: Any = None

    def open(self, run: TrackedRun) -> int:
        """See ``Tracker.open``."""
        folder = run.folder / FOLDER
        last = min(last_step(folder), run.iteration)
        self._writer = self._open(str(folder), purge_step=last + 1)
        if not last:
            lines = [f"    {name}: {value}" for name, value in run.settings.items()]
            self._writer.add_text("settings", "\n".join(lines), 0)
        self._writer.flush()
        return last

    def add(self, iteration: int, metrics: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        """See ``Tracker.add``; a row without its last metric is not read again, see ``last_step``."""
        for name, table in tables.items():
            self._writer.add_text(name, table.markdown(), iteration)
        for name, value in (*((k, v) for k, v in metrics.items() if k != LAST), (LAST, float(iteration))):
            self._writer.add_scalar(name, value, iteration)
        self._writer.flush()

    def close(self, outcome: str) -> None:
        """See ``Tracker.close``."""
        self._writer.close()


def last_step(folder: Path) -> int:
    """The last whole row in a folder of event files, as TensorBoard reads them; 0: none."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 1}).Reload()
    kept = [event.step for event in events.Scalars(LAST)] if LAST in events.Tags()["scalars"] else []
    return max(kept, default=0)
