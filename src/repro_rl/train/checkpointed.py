"""What the runs of both stages share: when a checkpoint is written, and how a run ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from repro_rl.dist.ranks import Ranks
from repro_rl.errors import (
    ApiError,
    CallbackError,
    DeviceMemoryError,
    NonFiniteError,
    RankLostError,
    TrainingStopped,
    clause,
)
from repro_rl.interrupts import deferred
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import Sampler
from repro_rl.rollout import Context
from repro_rl.run.callbacks import Callbacks
from repro_rl.run.checkpoint import optimizer_tensors, prune, save_checkpoint
from repro_rl.run.folder import manifest, write_manifest
from repro_rl.run.folder_kind import Kind
from repro_rl.run.model_paths import checkpoint_folder
from repro_rl.run.models import parameter_count
from repro_rl.run.setup import Setup
from repro_rl.train.state import RLState, WarmupState

OnText = Callable[[str], None]
# Errors after which the weights in memory are not worth a checkpoint, or not those of all ranks.
WRONG_WEIGHTS = (RankLostError, NonFiniteError, TrainingStopped)
SAID = (KeyboardInterrupt, ApiError, OSError, CallbackError, DeviceMemoryError)  # that what is done is kept


def notifier(on_text: OnText | None, ranks: Ranks) -> OnText:
    """What a run tells its user by: ``on_text`` of the first rank, else nothing."""
    return on_text if on_text and ranks.first else (lambda text: None)


class CheckpointedRun(ABC):
    """A run whose weights and optimizer are saved after whole updates."""

    setup: Setup
    out: Path  # the run folder
    policy: TransformersPolicy  # in training
    sampler: Sampler  # what plays with its weights
    context: Context
    callbacks: Callbacks
    notify: OnText  # tells the user a sentence
    state: RLState | WarmupState  # what checkpoints hold beside weights and optimizer
    optimizer: torch.optim.Optimizer  # of the weights in training
    unit: str  # what is counted: "iteration" or "update"
    stepped = False  # whether the update that was begun last may have changed a weight
    updating = False  # True: the weights are between two updates, and belong to none

    @property
    def iteration(self) -> int:
        """The last iteration (RL) or update (warmup): finished, unless ``updating``."""
        return self.state.iteration

    @abstractmethod
    def kept(self) -> tuple[int, int | None]:
        """How many of the newest checkpoints are kept, and the number of the best one, if any."""

    def _write_manifest(self, kind: Kind, panels: dict[str, dict[str, Any]], more: dict[str, Any]) -> None:
        """What the run is. ``panels``: their entries, by what they are for; ``more``: of this stage alone."""
        setup = self.setup
        content = manifest(
            setup.config,
            kind,
            processes=setup.ranks.world,
            panels=panels,
            environment=setup.pool.describe(),
            **more,
            sampler=self.sampler.describe(),
            parameters=parameter_count(self.policy.model),
            text=self.policy.codec.describe(),
        )
        write_manifest(self.out, content)

    @contextmanager
    def one_update(self) -> Iterator[None]:
        """Around an update, which a signal does not interrupt.

        Where it fails before a weight has changed, as most do, the weights are those of the one before.
        """
        with deferred():
            self.updating, self.stepped = True, False
            try:
                yield
            except BaseException:
                self.updating = self.stepped
                raise
            self.updating = False

    def before_step(self) -> None:
        """To be called in an update before weights change."""
        self.stepped = True

    def save(self) -> None:
        """Write a checkpoint of what is finished. Every rank calls it, and the first one writes."""
        ranks = self.setup.ranks
        with ranks.defer_termination():
            ranks.check_same_weights(self.policy.model.parameters())
            tensors = optimizer_tensors(self.optimizer)
            if ranks.first:
                self._write(tensors)

    def save_unsaved(self) -> bool:
        """Write the checkpoint of what is finished unless it is there already, when a run ends early.

        Of several ranks, which may be at different places by now, the first one saves alone. Nothing is saved
        where it cannot: its weights are split, or in the middle of an update. Returns whether it was written.
        """
        saved = checkpoint_folder(self.out, self.iteration).exists()
        if not self.iteration or self.updating or saved or not self.setup.ranks.saves_alone:
            return False
        self._write(optimizer_tensors(self.optimizer))
        return True

    def save_unsaved_when_terminated(self) -> None:
        """Have the monitor of the ranks save before it ends this process, where one rank can."""
        ranks = self.setup.ranks
        if ranks.monitor is not None and ranks.saves_alone:
            ranks.monitor.before_end = self.save_unsaved

    def _write(self, optimizer: dict[str, torch.Tensor]) -> None:
        folder, state = checkpoint_folder(self.out, self.iteration), self.state.as_json(self.context.name)
        save_checkpoint(folder, self.policy, optimizer, state)
        prune(self.out, *self.kept())


@contextmanager
def ending(run: CheckpointedRun) -> Iterator[None]:
    """Save what an interruption or an error leaves unsaved; tell callbacks the end.

    The error may be a lost server, a full disk or memory, or code of the user's own, such as a credit rule.
    An error of the save itself is told, and not raised: the one that ends the run is more important.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, WRONG_WEIGHTS):
            place = f"{run.unit} {run.iteration}"
            try:
                if run.save_unsaved() and not isinstance(error, SAID):
                    run.notify(f"Saved after {place}: the command, repeated, continues there.")
            except Exception as failure:
                run.notify(
                    f"The weights after {place} could not be saved: {_reason(failure)}. The command, "
                    "repeated, continues from the checkpoint before."
                )
        run.callbacks.end(error)
        raise
    run.callbacks.end(None)


def _reason(error: Exception) -> str:
    """Why something failed, to stand inside a sentence."""
    return error.strerror if isinstance(error, OSError) and error.strerror else clause(error)
