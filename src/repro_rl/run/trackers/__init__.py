"""Experiment trackers: metrics, settings and sample episodes of a run in TensorBoard, W&B, MLflow, Trackio.

Each is driven by its package's own interface, which alone can continue a run (docs/trackers.md). They are one
callback among others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig, TrainSection
from repro_rl.dist.ranks import Ranks
from repro_rl.errors import require_extra
from repro_rl.run.callbacks import Callback, Callbacks, RunInfo, load_callbacks
from repro_rl.run.trackers.base import Tracker
from repro_rl.run.trackers.feed import TrackerCallback


def check_callbacks(train: TrainSection) -> list[tuple[str, Callback]]:
    """The callbacks of the settings, trackers first, which have opened nothing yet.

    Raises MissingDependencyError for a tracker that is not installed, and what ``load_callbacks`` raises:
    before anything is spent.
    """
    trackers: list[tuple[str, Callback]] = []
    for name in dict.fromkeys(train.trackers):
        require_extra(name)  # a tracker, its package and its extra have one name
        trackers.append((name, TrackerCallback(name, train.tracking, open_tracker)))
    return [*trackers, *load_callbacks(train.callbacks)]


def open_tracker(name: str) -> Tracker:
    """A tracker by name; its package is imported now."""
    module = import_module(f"{__name__}.{name}_run")
    found: Tracker = module.RunTracker()
    return found


def run_callbacks(
    train: TrainSection, ranks: Ranks, given: Sequence[Callback], notify: Callable[[str], None] | None
) -> Callbacks:
    """All callbacks of a run on the first process, none on the others.

    ``given``: those of the caller, beside the ones in the settings. Raises what ``check_callbacks`` raises.
    """
    found: list[tuple[str, Callback]] = []
    ranks.on_first(lambda: found.extend(check_callbacks(train)))
    if ranks.first:
        found += [(type(callback).__name__, callback) for callback in given]
    return Callbacks(found, train.callback_errors, notify)


def run_info(
    stage: str, folder: Path, config: RunConfig, continues: bool, rows: Sequence[dict[str, Any]]
) -> RunInfo:
    """What callbacks are told at the start."""
    return RunInfo(
        stage, Path(folder), config.model_dump(mode="json"), continues, tuple(dict(row) for row in rows)
    )
