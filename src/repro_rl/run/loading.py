"""A run folder as one object, for analysis: settings, manifest, metrics, evaluations, episodes, models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig, load_run_config
from repro_rl.errors import CheckpointError
from repro_rl.files import whole_rows
from repro_rl.files.names import CONFIG_FILE, METRICS_FILE, RECORDS, TRAJECTORIES
from repro_rl.rollout.record import read_trajectories
from repro_rl.run.evaluations import evaluation_files, read_evaluation
from repro_rl.run.model_paths import find_model, read_manifest


@dataclass(slots=True, frozen=True)
class LoadedRun:
    """A finished or running run."""

    folder: Path  # the run folder
    config: RunConfig  # its settings, with the paths as this process must open them
    manifest: dict[str, Any]  # versions, panels, hardware; empty where there is none

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one an iteration; a last line that is still being written is left out.

        Raises DataError naming any other line that is no row.
        """
        return whole_rows(self.folder / METRICS_FILE)

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """The results of its evaluations by name.

        Raises DataError, naming file and field, for one that cannot be read or is no evaluation.
        """
        return {path.stem: read_evaluation(path) for path in evaluation_files(self.folder)}

    def trajectory_files(self) -> list[Path]:
        """Recorded episodes: ``iteration-*`` of training, ``eval-*`` of evaluations."""
        return sorted((self.folder / TRAJECTORIES).glob(f"*{RECORDS}"))

    def trajectories(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of one of these files, by its name without ``.jsonl.gz``. Raises DataError."""
        return read_trajectories(self.folder / TRAJECTORIES / f"{name}{RECORDS}")

    def model(self, which: str = "last") -> Path:
        """The model folder of a checkpoint, see ``find_model``. Raises CheckpointError."""
        return find_model(self.folder, which)


def load_run(folder: str | Path, *, trust: bool = False) -> LoadedRun:
    """The run in ``folder``.

    ``trust``: use all its settings, also where somebody else made it (see ``load_run_config``, also on
    settings that no training would take now). Raises CheckpointError where there is none, ConfigError for
    broken settings and those that are not trusted.
    """
    path = Path(folder)
    check_is_run_folder(path)
    config = load_run_config(path, allow=(lambda question: True) if trust else None)
    return LoadedRun(path, config, read_manifest(path))


def check_is_run_folder(folder: str | Path) -> None:
    """Raises CheckpointError where a folder is no run folder."""
    path = Path(folder)
    if not (path / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{path} is not a run folder: config.yaml is missing. A model alone needs settings as well: "
            "--config RECIPE, where a command has it."
        )
