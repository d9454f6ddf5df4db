"""Where an RL run begins or continues, and what is refused before a model is loaded for it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro_rl.envs import TaskPanel
from repro_rl.errors import PreflightError
from repro_rl.files.names import CONFIG_FILE
from repro_rl.run.checkpoint import Checkpoint, latest
from repro_rl.run.folder import check_run
from repro_rl.run.folder_kind import check_kind
from repro_rl.run.inputs import check_same_panels
from repro_rl.run.model_paths import kept_start, start_model
from repro_rl.run.panels import training_uses
from repro_rl.run.preflight import preflight
from repro_rl.run.setup import Setup
from repro_rl.train.schedule import check_share

# Settings that decide when to stop, what is kept and what is printed, but not what is computed; and those of
# other commands.
FREE_ON_CONTINUE = (
    *("train.iterations", "train.env_steps", "train.keep", "train.peer_timeout"),
    *("alarms", "demos", "warmup", "policy.vllm.server"),
    *("eval.split", "eval.tasks", "eval.rollouts", "eval.temperature", "eval.panel"),
    *("train.callbacks", "train.callback_errors", "train.trackers", "train.tracking"),
)


@dataclass(slots=True, frozen=True)
class Start:
    """Where an RL run begins or continues."""

    warm_start: Path  # the reference model
    checkpoint: Checkpoint | None  # of the run itself; None when it begins

    @property
    def model(self) -> Path:
        """The weights to train on from here."""
        return self.checkpoint.folder if self.checkpoint else self.warm_start


@dataclass(slots=True, frozen=True)
class OpenedRun:
    """A folder that an RL run may write, and what it trains on from there."""

    start: Start
    continues: bool  # the folder holds the same run already
    tasks: TaskPanel  # trained on
    panels: dict[str, dict[str, Any]]  # their entries in the manifest, by what they are for


def find_start(setup: Setup, out: Path) -> Start:
    """Where the run in ``out`` begins or continues.

    Raises PreflightError without train.init, CheckpointError when it names no model, and ConfigError for more
    ranks than task groups.
    """
    config, ranks = setup.config, setup.ranks
    if config.train.init is None:
        raise PreflightError("train.init is not set: give the warm start, e.g. --init runs/warm/model.")
    warm_start = start_model(config.train.init)
    check_share(config.train.groups, ranks.world)
    # Files in a folder without settings are not of a run: they are left alone until it is opened.
    return Start(warm_start, ranks.on_first(lambda: latest(out) if (out / CONFIG_FILE).exists() else None))


def open_training(setup: Setup, out: Path) -> OpenedRun:
    """Check what can be checked without a model. Writes nothing.

    Warns of prompts that the warm start was not taught, and of what an evaluation of the run would lack.
    Raises what ``find_start`` and ``preflight`` do, and ConfigError when ``out`` is of other settings or
    tasks.
    """
    config, ranks = setup.config, setup.ranks
    ranks.on_first(lambda: check_kind(out, "training"))  # before the checkpoints of others are looked for
    start = find_start(setup, out)
    uses = training_uses(config.train)
    for line in preflight(config, setup.pool.first, uses, model=start.warm_start):
        if ranks.first:
            warnings.warn(line, stacklevel=3)  # of who makes the run
    continues = ranks.on_first(lambda: check_run(out, config, FREE_ON_CONTINUE))
    tasks = setup.panel(config.train.split)
    panels = {"train": tasks.manifest(), **setup.validation_manifest()}
    if continues:
        ranks.on_first(lambda: check_same_panels(out, panels))
        kept = ranks.on_first(lambda: kept_start(out, start.warm_start))
        start = replace(start, warm_start=kept)
    return OpenedRun(start, continues, tasks, panels)
