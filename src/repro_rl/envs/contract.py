"""What an environment returns is checked where it comes in: one that breaks its contract fails its episode.

Environments are code of others. A value of a wrong type would go far before it is noticed: into prompts,
rewards and records of a whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro_rl.envs.base import TextEnv
from repro_rl.errors import ConfigError, EnvError, counted, unencodable
from repro_rl.files import finite

CLEAN = "Replace such characters where the text comes from: text.encode(errors='replace').decode()."
FRACTION = "a number within 0 and 1 (a fraction, not percent)"
PROBED = 5  # tasks that are looked at for true progress
ENDLESS = 2  # times the environment's max_steps, after which an episode that goes on fails
SHOWN = 80  # characters of a wrong value that a message shows
StepResult = tuple[str, Any, bool, bool, dict[str, Any]]  # what ``env.step`` returns


@dataclass(slots=True, frozen=True)
class Demand:
    """What the value of a key of ``info`` must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def checked_reset(returned: Any) -> tuple[str, dict[str, Any]]:
    """What ``env.reset`` returned: observation and info. Raises EnvError naming what is wrong."""
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise EnvError(f"reset() must return (observation, info), not {_kind(returned)}.")
    observation, info = returned
    _check_observation("reset", observation)
    _check_info("reset", info)
    return observation, info


def checked_step(returned: Any) -> StepResult:
    """What ``env.step`` returned. Raises EnvError naming what is wrong."""
    if not isinstance(returned, tuple) or len(returned) != 5:
        raise EnvError(
            f"step() must return (observation, reward, terminated, truncated, info), not {_kind(returned)}."
        )
    observation, reward, terminated, truncated, info = returned
    _check_observation("step", observation)
    if not is_number(reward):
        raise EnvError(f"step() returned the reward {reward!r}; it must be a finite number.")
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        if not is_bool(value):
            raise EnvError(f"step() returned {name}={value!r}; it must be True or False.")
    _check_info("step", info)
    return observation, reward, bool(terminated), bool(truncated), info


def overdue(max_steps: int, t: int) -> str | None:
    """Why an episode that has not ended at step ``t`` fails; None while it may go on."""
    if t < ENDLESS * max_steps:
        return None
    return f"it did not end within {counted(t, 'step')}; max_steps is {max_steps}"


def check_progress(env: TextEnv, task_ids: Sequence[str], setting: str) -> None:
    """Raise ConfigError where the environment tells no progress in the first tasks, and ``setting`` needs it.

    Each is looked at after its reset and one step. A task that fails tells nothing, and raises nothing here.
    """
    silent = 0
    for task in task_ids[:PROBED]:
        try:
            info = checked_reset(env.reset(options={"task": task}))[1]
            if info["progress"] is None:
                info = checked_step(env.step(env.expert() or ""))[4]
        except Exception:  # the environment may raise anything
            continue
        if info["progress"] is not None:
            return
        silent += 1
    if silent:
        raise ConfigError(
            f"{setting}, which needs the true progress, but the environment {env.name!r} gives none: "
            f"info['progress'] is None in {counted(silent, 'task')} of its split. Give it there, or choose "
            "another source of progress."
        )


def _check_observation(method: str, observation: Any) -> None:
    if not isinstance(observation, str):
        raise EnvError(f"{method}() returned an observation of {_kind(observation)}; it must be text.")
    wrong = unencodable(observation)
    if wrong is not None:
        raise EnvError(f"{method}() returned an observation with {wrong}, which is no character. {CLEAN}")


def _check_info(method: str, info: Any) -> None:
    if not isinstance(info, dict):
        raise EnvError(f"{method}() returned an info of {_kind(info)}; it must be a dict.")
    if lacking := missing_keys(info, KEYS):
        raise EnvError(f"{method}() returned an info without {lacking}.")
    if wrong := wrong_values(info, DEMANDS):
        raise EnvError(f"{method}() returned {wrong}.")
    for name, text in _texts(info):
        surrogate = unencodable(text)
        if surrogate is not None:
            raise EnvError(
                f"{method}() returned info[{name!r}] with {surrogate}, which is no character. {CLEAN}"
            )


def _texts(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The texts of a checked ``info`` that prompts and records show, with their keys."""
    yield "goal", info["goal"]
    for action in info["admissible"]:
        yield "admissible", action
    if "brief" in info:
        yield "brief", str(info["brief"])


def missing_keys(info: dict[str, Any], keys: Sequence[str]) -> str:
    """The ``keys`` that are not in ``info``, for a sentence; "" where all are."""
    return ", ".join(repr(key) for key in keys if key not in info)


def wrong_values(info: Mapping[str, Any], demands: Mapping[str, Demand]) -> str:
    """Which values of ``info`` are not as demanded, for a sentence; "" where all are.

    A key that is not there has no value, and is passed over.
    """
    wrong = [
        f"info[{name!r}] is {repr(info[name])[:SHOWN]}; it must be {demand.words}"
        for name, demand in demands.items()
        if name in info and not demand.holds(info[name])
    ]
    return ", and ".join(wrong)


def is_fraction(value: Any) -> bool:
    """Whether a value is a number within 0 and 1."""
    return is_number(value) and 0 <= value <= 1


def is_number(value: Any) -> bool:
    """Whether a value is a real number, Python's or numpy's, and finite; Python's bool is one here."""
    return isinstance(value, bool) or finite(value)


def is_bool(value: Any) -> bool:
    """Whether a value is a bool, Python's or numpy's."""
    return type(value).__name__ in ("bool", "bool_")  # Python's, and numpy's under its names


def _is_hashable(value: Any) -> bool:
    if not isinstance(value, Hashable):
        return False
    try:
        hash(value)  # a tuple is hashable only if its items are
    except TypeError:
        return False
    return True


def _are_texts(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(item, str) for item in value)


# What rollouts read of ``info``. The environment checker has stricter demands beside these.
DEMANDS: dict[str, Demand] = {
    "goal": Demand("text", lambda value: isinstance(value, str)),
    "admissible": Demand("a list of texts", _are_texts),
    "anchor": Demand("hashable", _is_hashable),
    "valid": Demand("True or False", is_bool),
    "won": Demand("True or False", is_bool),
    "score": Demand(FRACTION, is_fraction),
    "progress": Demand(f"{FRACTION}, or None", lambda value: value is None or is_fraction(value)),
}
KEYS = tuple(DEMANDS)


def _kind(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple) else type(value).__name__
