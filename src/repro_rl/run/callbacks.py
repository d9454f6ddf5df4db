"""Callbacks: a user's own code that is told what a training run does. The trackers are one of them.

They are told of events by the first process, and are given copies. So nothing they do to them changes the
training. An example is in docs/trackers.md.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repro_rl.config.parsing import import_named
from repro_rl.errors import CallbackError, ConfigError, UnknownNameError, clause, did_you_mean
from repro_rl.registry import Registry

Row = dict[str, Any]  # of metrics.jsonl
Errors = Literal["warn", "stop"]


@dataclass(slots=True, frozen=True)
class RunInfo:
    """What a callback is told at the start of a run."""

    stage: str  # "warmup" or "train"
    folder: Path  # the run folder
    settings: Mapping[str, Any]  # all settings, resolved, nested as in config.yaml
    continues: bool  # the folder holds a run of these settings, which goes on
    rows: tuple[Row, ...]  # of metrics.jsonl that stand: those of an earlier command, up to its checkpoint

    @property
    def iteration(self) -> int:
        """The last iteration (of a warmup: update) whose row stands; 0 at the beginning."""
        return int(self.rows[-1]["iteration"]) if self.rows else 0


class Callback:
    """Base class of callbacks. Every method does nothing; define those you need.

    An exception in one is reported by name and counted, and the run goes on; ``train.callback_errors=stop``
    ends it instead. A method must return before the run goes on, so it should be quick.
    """

    def on_start(self, run: RunInfo) -> None:
        """The run is about to begin or to continue; everything it needs is loaded."""

    def on_row(self, row: Row) -> None:
        """An iteration (of a warmup: an update) is done and its row is in metrics.jsonl."""

    def on_validation(self, iteration: int, metrics: Row) -> None:
        """A validation is done: ``validation/success``, in RL ``validation/tasks``, as in the next row."""

    def on_episodes(self, iteration: int, episodes: Sequence[Row]) -> None:
        """Episodes that are recorded (``train.record_every``), as in docs/records.md; before their row."""

    def on_checkpoint(self, iteration: int, folder: Path) -> None:
        """A checkpoint was written."""

    def on_end(self, error: BaseException | None) -> None:
        """The run is over: done (None), stopped or interrupted by ``error``."""


CALLBACKS: Registry[Callable[[], Callback]] = Registry("callback", group="repro_rl.callbacks")


def register_callback(name: str) -> Callable[[Callable[[], Callback]], Callable[[], Callback]]:
    """Decorator: make a Callback class or factory available in ``train.callbacks`` by name."""
    return CALLBACKS.register(name)


def load_callbacks(names: Iterable[str]) -> list[tuple[str, Callback]]:
    """Each name with a new callback: of a registered name, or of ``package.module:Name``.

    Raises ConfigError for one that cannot be found, imported or built.
    """
    return [(name, _build(name)) for name in names]


def _build(name: str) -> Callback:
    try:
        factory = _factory(name)
        callback = factory()
    except UnknownNameError as error:
        raise ConfigError(
            f"train.callbacks: {clause(error)}. Give a registered name or package.module:Class."
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f"train.callbacks: {name!r} cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(callback, Callback):
        raise ConfigError(
            f"train.callbacks: {name!r} gives a {type(callback).__name__}, not a repro_rl.Callback; give a "
            "class derived from it, or a function that returns one."
        )
    events = [event for event in dir(Callback) if event.startswith("on_")]
    for method in dir(callback):
        if method.startswith("on_") and method not in events:
            raise ConfigError(
                f"train.callbacks: {name!r} has {method}, which is never called"
                f"{did_you_mean(method, events)}."
            )
    return callback


def _factory(name: str) -> Callable[[], Any]:
    module, colon, attribute = name.partition(":")
    if not colon:
        return CALLBACKS.get(name)
    found: Any = import_named("train.callbacks", module)
    for part in attribute.split("."):
        if part not in vars(found):
            raise ConfigError(f"train.callbacks: {name!r}: there is no {part!r} in {module}.")
        found = vars(found)[part]
    if not callable(found):
        raise ConfigError(f"train.callbacks: {name!r} is a {type(found).__name__}, not a class or function.")
    return found  # type: ignore[no-any-return]


class Callbacks:
    """Calls all callbacks of a run; of the other processes it has none.

    ``errors``: "warn" reports the first exception of a callback, counts all of them and goes on; "stop"
    raises CallbackError. ``notify``: gets the reports; None for Python's warnings.
    """

    def __init__(
        self,
        callbacks: Sequence[tuple[str, Callback]] = (),
        errors: Errors = "warn",
        notify: Callable[[str], None] | None = None,
    ):
        self.callbacks, self.errors = list(callbacks), errors
        self.notify = notify or (lambda text: warnings.warn(text, stacklevel=4))
        self.failed: Counter[tuple[str, str]] = Counter()  # exceptions by callback and event
        self.started = False

    def __bool__(self) -> bool:
        return bool(self.callbacks)

    def start(self, run: RunInfo) -> None:
        """See ``Callback.on_start``."""
        self.started = True
        self._call("on_start", lambda callback: callback.on_start(deepcopy(run)))

    def row(self, row: Row) -> None:
        """See ``Callback.on_row``."""
        self._call("on_row", lambda callback: callback.on_row(dict(row)))

    def validation(self, iteration: int, row: Row) -> None:
        """See ``Callback.on_validation``; ``row``: which has the metrics."""
        metrics = {name: value for name, value in row.items() if name.startswith("validation/")}
        self._call("on_validation", lambda callback: callback.on_validation(iteration, dict(metrics)))

    def episodes(self, iteration: int, records: Callable[[], list[Row]]) -> None:
        """See ``Callback.on_episodes``; ``records`` makes them anew for every callback that asks for them."""
        asked = Callback.on_episodes
        self._call(
            "on_episodes",
            lambda callback: (
                callback.on_episodes(iteration, records())
                if type(callback).on_episodes is not asked
                else None
            ),
        )

    def checkpoint(self, iteration: int, folder: Path) -> None:
        """See ``Callback.on_checkpoint``."""
        self._call("on_checkpoint", lambda callback: callback.on_checkpoint(iteration, folder))

    def end(self, error: BaseException | None) -> None:
        """See ``Callback.on_end``; called once, and only of a run that has started. Never raises."""
        if not self.started:
            return
        self.started, self.errors = False, "warn"
        self._call("on_end", lambda callback: callback.on_end(error))
        for (name, event), count in self.failed.items():
            if count > 1:
                self.notify(f"Callback {name}: {event} failed {count} times in all.")

    def _call(self, event: str, call: Callable[[Callback], None]) -> None:
        for name, callback in self.callbacks:
            try:
                call(callback)
            except Exception as error:
                text = f"Callback {name}: {event} failed: {type(error).__name__}: {clause(error)}"
                self.failed[name, event] += 1
                if self.errors == "stop":
                    raise CallbackError(
                        f"{text}. The run stopped (train.callback_errors=stop); repeating it continues it."
                    ) from error
                if (
                    sum(count for (who, _), count in self.failed.items() if who == name) == 1
                    or event == "on_end"
                ):
                    self.notify(f"{text}. The run goes on, and further failures are counted.")
