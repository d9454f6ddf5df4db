"""What a run has found so far, as one JSON file that is whole after every step."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from repro_rl.files import read_json_if_any, write_json

FILE = "gpu_run.json"
DONE, RUNNING, FAILED, CUT_OFF = "done", "running", "failed", "cut off"


class OutOfTimeError(Exception):
    """A stage has left out something for want of time; the rest of it is written."""


class Journal:
    """The file ``gpu_run.json`` in a folder; every method writes it whole, by renaming.

    One process at a time writes: the parent between stages, the process of a stage while it runs.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self.content: dict[str, Any] = read_json_if_any(self.path)
        self.content.setdefault("stages", {})

    def status(self, stage: str) -> str | None:
        """How a stage ended; None where it never began."""
        return self.content["stages"].get(stage, {}).get("status")

    def note(self, **values: Any) -> None:
        """Facts of the whole run."""
        self.content.update(_clean(values))
        self._write()

    def begin(self, stage: str, budget: float) -> None:
        """A stage starts, or starts again: rows of a run that goes on are kept, all else is measured anew."""
        rows = self.content["stages"].get(stage, {}).get("rows", {})
        self.content["stages"][stage] = {
            "status": RUNNING,
            "budget_seconds": round(budget, 1),
            "results": {},
            "rows": rows,
        }
        self._write()

    def result(self, stage: str, name: str, value: Any) -> None:
        """One figure, or a table of them."""
        self.content["stages"][stage]["results"][name] = _clean(value)
        self._write()

    def rows(self, stage: str, name: str, rows: list[dict[str, Any]]) -> None:
        """All rows so far of a series, such as the iterations of a training."""
        self.content["stages"][stage]["rows"][name] = _clean(rows)
        self._write()

    def end(self, stage: str, status: str, seconds: float, error: str = "") -> None:
        """How a stage ended, and why where it did not end well."""
        entry = self.content["stages"][stage]
        entry |= {"status": status, "seconds": round(seconds, 2)}
        if error:
            entry["error"] = error
        self._write()

    def _write(self) -> None:
        self.content["written"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(self.path, self.content)


class Deadline:
    """A point in time that a stage should end at by itself."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then, negative afterwards."""
        return self.end - time.monotonic()


def _clean(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become text. Floats keep six significant digits."""
    if isinstance(value, dict):
        return {str(key): _clean(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value
