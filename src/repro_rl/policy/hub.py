"""What loading from Hugging Face folders and hub names shares."""

from __future__ import annotations

import os
from pathlib import Path

from repro_rl.errors import CheckpointError


def hide_progress_bars() -> None:
    """Hide transformers' own progress bars; ours show what matters."""
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()


def check_model_path(path: str | Path) -> None:
    """Raises CheckpointError for a folder that is not there, or that holds no model."""
    folder, name = Path(path), str(path)
    if not folder.exists():
        if name.startswith((".", "/", "~")) or os.sep in name[name.find("/") + 1 :]:
            raise CheckpointError(
                f"No model folder at {path}. Give a folder that holds config.json, or a hub name."
            )
    elif not (folder / "config.json").exists():
        raise CheckpointError(
            f"{path} is not a model folder: config.json is missing. Is it a run folder? "
            f"Its models lie in {path}/checkpoints/<iteration>."
        )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__
