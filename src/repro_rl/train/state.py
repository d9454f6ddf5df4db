"""What a run of either stage has done so far: its checkpoints hold it beside weights and optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RLState:
    """How far an RL run is."""

    iteration: int = 0  # the last one that is finished: the checkpoint's number
    env_steps: int = 0  # played in training
    seconds: float = 0.0  # that the iterations took
    best: tuple[float, int] | None = None  # validation success and its iteration
    row: dict[str, Any] | None = None  # of the last iteration, while it is not in the log yet
    streaks: dict[str, int] = field(default_factory=dict)  # the dictionary of ``Alarms.streak``

    @classmethod
    def from_json(cls, iteration: int, saved: Mapping[str, Any]) -> RLState:
        """As ``as_json`` gave it, in the checkpoint of this ``iteration``."""
        best = None
        if saved["best_iteration"] is not None:
            best = (float(saved["best_success"]), int(saved["best_iteration"]))
        return cls(
            iteration=iteration,
            env_steps=int(saved["env_steps"]),
            seconds=float(saved["seconds"]),
            best=best,
            row=saved.get("row"),
            streaks={name: int(count) for name, count in saved["alarms"].items()},
        )

    def as_json(self, context: str) -> dict[str, Any]:
        """For a checkpoint; ``context``: the mode of the prompts, which later stages compare with theirs."""
        success, iteration = self.best or (None, None)
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "seconds": self.seconds,
            "best_success": success,
            "best_iteration": iteration,
            "alarms": self.streaks,
            "context": context,
            **_unlogged(self.row),
        }


@dataclass(slots=True)
class WarmupState:
    """How far a warmup is."""

    iteration: int = 0  # the last update that is finished, or the one under way: the checkpoint's number
    stopped: bool = False  # a validation reached ``warmup.target_success``
    row: dict[str, Any] | None = None  # of the last update, while it is not in the log yet
    skipped: int = 0  # updates in a row whose loss or gradient was not finite

    @classmethod
    def from_json(cls, iteration: int, saved: Mapping[str, Any]) -> WarmupState:
        """As ``as_json`` gave it, in the checkpoint of this ``iteration``."""
        return cls(iteration, bool(saved["stopped"]), saved.get("row"), int(saved.get("skipped", 0)))

    def as_json(self, context: str) -> dict[str, Any]:
        """For a checkpoint; ``context``: see ``RLState.as_json``."""
        return {
            "stopped": self.stopped,
            "context": context,
            **_unlogged(self.row),
            **({"skipped": self.skipped} if self.skipped else {}),
        }


def _unlogged(row: dict[str, Any] | None) -> dict[str, Any]:
    """The entry for a row that an interruption kept from the log; none without one."""
    return {} if row is None else {"row": row}
