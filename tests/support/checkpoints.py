"""Checkpoints without weights, where only folders and states matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def empty_checkpoint(run: Path, iteration: int, **state: Any) -> Path:
    """A checkpoint folder that looks complete."""
    folder = run / "checkpoints" / f"{iteration:05d}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps(state))
    return folder
