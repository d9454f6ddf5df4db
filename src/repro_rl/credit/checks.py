"""What the numbers given to a credit rule must be. A wrong one is named, never rounded or cut to fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from repro_rl.credit.baseline import finite_array, length_of
from repro_rl.errors import ConfigError
from repro_rl.types import LOG_PROB_ROUNDING

PER_STEP = (
    *("rewards", "anchors", "reached", "actions", "valid", "texts", "token_counts", "hindsight_log_prob"),
)
KEYS = ("groups", "final_anchors")  # one a trajectory
ROWS_OF_KEYS = ("anchors", "reached", "actions")
NUMBERS = ("episode_returns", "scores", "outcome_rewards", "won", "lengths")  # one a trajectory
ROWS_OF_NUMBERS = ("rewards", "valid", "token_counts", "judged")
MUST_BE: Mapping[str, str] = {  # of NUMBERS and ROWS_OF_NUMBERS: what else than finite
    **dict.fromkeys(("won", "valid"), "flag"),
    **dict.fromkeys(("lengths", "token_counts"), "count"),
    **dict.fromkeys(("scores", "judged"), "fraction"),
}
SAID = {"flag": "True or False", "count": "a whole number from 0 on", "fraction": "a fraction from 0 to 1"}


def check_values(rule: str, given: Mapping[str, Any]) -> None:
    """Raises ConfigError for a value that is no finite number, flag, count, fraction, log-prob, key or text.

    ``given``: the inputs of ``rule`` by name, without those that are None.
    """
    for name in (*NUMBERS, *ROWS_OF_NUMBERS):
        if name in given:
            must_be(rule, name, given[name] if name in NUMBERS else rows_of(rule, name, given[name]))
    finite_array("turn_rewards", numbers_of(given.get("turn_rewards")))
    check_log_probs(rule, "hindsight_log_prob", given.get("hindsight_log_prob"))
    for name in (*KEYS, *ROWS_OF_KEYS):
        keys = given.get(name, ()) if name in KEYS else rows_of(rule, name, given.get(name, ()))
        check_keys(rule, name, keys)
    for text in rows_of(rule, "texts", given.get("texts", ())):
        if not isinstance(text, str):
            raise ConfigError(f"{rule}: texts holds {text!r:.40}; every observation must be text.")


def check_lengths(rule: str, given: Mapping[str, Any]) -> None:
    """Raises ConfigError for a row of another length than its trajectory, and for what is no step of it.

    ``given`` as in ``check_values``; where it has no "lengths", nothing is known of them.
    """
    turns = "turn_rewards" in given and has_rows(given["turn_rewards"])
    lengths = [int(length) for length in given.get("lengths", ())]
    for name in (*PER_STEP, *(["turn_rewards"] if turns else [])):
        for n, (row, steps) in enumerate(zip(given.get(name, ()), lengths, strict=False)):
            count = length_of(f"{rule}: {name} of trajectory {n}", row)
            if count != steps:
                raise ConfigError(
                    f"{rule}: trajectory {n} has {count} {name} and {steps} steps; give one a step."
                )
    for n, (values, steps) in enumerate(zip(given.get("judged", ()), lengths, strict=False)):
        if values is not None and len(values) != steps + 1:
            raise ConfigError(
                f"{rule}: trajectory {n} has {len(values)} judged values and {steps} steps; give P_0..P_T, "
                "one more than steps."
            )
        if values is not None and values[0] != 0:
            raise ConfigError(
                f"{rule}: judged of trajectory {n} begins with {values[0]}; P_0, before any action, is 0."
            )
    for n, (first, steps) in enumerate(zip(given.get("first_step_after_tool", ()), lengths, strict=False)):
        if first is not None and not (_is_whole(first) and 0 <= first <= steps):
            raise ConfigError(
                f"{rule}: first_step_after_tool of trajectory {n} is {first!r}; give the number of a step, "
                f"0 to {steps}, or None."
            )


def check_log_probs(rule: str, name: str, values: Any) -> None:
    """Raises ConfigError for the first number in nested ``values`` that is no log of a probability."""
    for place, value in _placed(values):
        # minus infinity is the log of probability 0
        if isinstance(value, str | bytes) or not value <= LOG_PROB_ROUNDING:
            raise ConfigError(f"{rule}: {name}{place} holds {value!r}, which is no log-prob.")


def check_keys(rule: str, name: str, keys: Iterable[Any]) -> None:
    """Raises ConfigError for a key that is nan."""
    if any(isinstance(key, float) and math.isnan(key) for key in keys):
        raise ConfigError(f"{rule}: {name} holds nan, which is equal to nothing; give another key.")


def must_be(rule: str, name: str, values: Iterable[Any]) -> None:
    """Raises ConfigError for a value that is not finite, or not what ``MUST_BE`` says of the name."""
    numbers, kind = finite_array(name, values), MUST_BE.get(name)
    if kind is None:
        return
    if kind == "flag":
        wrong = (numbers != 0) & (numbers != 1)
    elif kind == "count":
        wrong = (numbers < 0) | (numbers != np.floor(numbers))
    else:
        wrong = (numbers < 0) | (numbers > 1)
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        raise ConfigError(f"{rule}: {name}: value {index} is {numbers[index]:g}; it must be {SAID[kind]}.")


def rows_of(rule: str, name: str, rows: Sequence[Any]) -> Iterator[Any]:
    """What all rows hold, one after another; "judged" may have None for a row.

    Raises ConfigError where one is no list.
    """
    for n, row in enumerate(rows):
        if row is None and name == "judged":
            continue
        length_of(f"{rule}: {name} of trajectory {n}", row)
        yield from row


def has_rows(turn_rewards: Sequence[Any]) -> bool:
    """Whether turn rewards are N x T_n, not [N]. Raises ConfigError where they are some of each."""
    rows = [getattr(value, "ndim", 0) > 0 or isinstance(value, list | tuple) for value in turn_rewards]
    if any(rows) and not all(rows):
        raise ConfigError(
            "turn_rewards holds lists and single numbers; give one number a trajectory, or one list each."
        )
    return all(rows)


def numbers_of(values: Any) -> Iterator[Any]:
    """The numbers of nested sequences, in order; None holds none."""
    return (value for _, value in _placed(values))


def _placed(values: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """``numbers_of``, each with its place, such as "[0][2]"."""
    if isinstance(values, Iterable) and not isinstance(values, str) and getattr(values, "ndim", None) != 0:
        for index, value in enumerate(values):
            yield from _placed(value, f"{place}[{index}]")
    elif values is not None:
        yield place, values


def _is_whole(value: Any) -> bool:
    return isinstance(value, Real) and float(value).is_integer()
