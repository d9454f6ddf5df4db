"""The statistic behind GRPO and GiGPO: a value relative to the mean and standard deviation of its group."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.files import finite

Normalize = Literal["mean", "mean_std"]
EpisodeBaseline = Literal["steps", "trajectories"]
Floats = NDArray[np.float64]
EPSILON = 1e-6  # added to the standard deviation (public GiGPO implementation)


def check_choice(label: str, value: object, choices: Iterable[str]) -> None:
    """Raise ConfigError when ``value`` is none of ``choices``."""
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(f"{label} is {value!r}{did_you_mean(str(value), choices)}")


def finite_array(label: str, values: Iterable[float]) -> Floats:
    """[N] float64. Raises ConfigError when a value is no number (text, a list), NaN or infinite."""
    try:
        given = list(values)
        text = next((value for value in given if isinstance(value, str | bytes)), None)
        if text is not None:  # numpy would read it as a number
            raise TypeError(f"{text!r:.40} is text")
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{label}: every value must be a number ({error}).") from error
    if array.ndim != 1:
        raise ConfigError(f"{label}: every value must be a number; got lists of {array.shape[1]} in it.")
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ConfigError(f"{label}: value {index} is {array[index]}; every value must be a finite number.")
    return array


def check_discount(gamma: float) -> None:
    """Raise ConfigError unless ``gamma`` is a number within 0 and 1."""
    if not (finite(gamma) and 0.0 <= gamma <= 1.0):
        raise ConfigError(f"gamma is {gamma!r}; it must lie between 0 and 1.")


def length_of(label: str, values: Any) -> int:
    """The entries of a list. Raises ConfigError for text, and for what has no entries."""
    try:
        if isinstance(values, str | bytes):
            raise TypeError
        return len(values)
    except TypeError:
        raise ConfigError(f"{label} is {str(values)[:40]!r}; it must be a list.") from None


def check_pairs(name: str, returns: Sequence[float], groups: Sequence[Hashable]) -> None:
    """Raise ConfigError unless every trajectory has a return and a group."""
    counts = length_of(f"{name}: returns", returns), length_of(f"{name}: groups", groups)
    if counts[0] != counts[1]:
        raise ConfigError(
            f"{name} got {counts[0]} returns and {counts[1]} group names; give one of each per trajectory."
        )


def check_entries(name: str, rewards: Sequence[Any], label: str, other: Sequence[Any]) -> None:
    """Raise ConfigError unless ``other``, called ``label``, has one entry a trajectory of ``rewards`` [N]."""
    count = length_of(f"{name}: rewards", rewards)
    if length_of(f"{name}: {label}", other) != count:
        raise ConfigError(
            f"{name} got {count} trajectories in rewards but {len(other)} in {label}; give one entry per "
            "trajectory."
        )


def check_steps(
    name: str,
    rewards: Sequence[Sequence[float]],
    groups: Sequence[Hashable],
    anchors: Sequence[Sequence[Hashable]],
) -> None:
    """Raise ConfigError unless each trajectory [N] has a group, and each of its steps reward and anchor."""
    check_entries(name, rewards, "groups", groups)
    check_entries(name, rewards, "anchors", anchors)
    for n, (row, keys) in enumerate(zip(rewards, anchors, strict=True)):
        steps = length_of(f"{name}: rewards of trajectory {n}", row)
        states = length_of(f"{name}: anchors of trajectory {n}", keys)
        if steps != states:
            raise ConfigError(
                f"{name}: trajectory {n} has {steps} rewards and {states} anchors; give one of each per step."
            )


def number_keys(label: str, keys: Sequence[Hashable]) -> NDArray[np.intp]:
    """[N] ids 0..K-1, equal where the keys are equal. Raises ConfigError for an unhashable key."""
    numbers: dict[Hashable, int] = {}
    try:
        ids = [numbers.setdefault(key, len(numbers)) for key in keys]
    except TypeError as error:
        raise ConfigError(
            f"{label} must be hashable ({error}); use a str, a number or a tuple as the key."
        ) from error
    return np.asarray(ids, dtype=np.intp)


def normalise(
    values: Floats, ids: NDArray[np.intp], counts: Floats, normalize: Normalize, *, lone_keeps_value: bool
) -> Floats:
    """(value - mean) or, for ``"mean_std"``, (value - mean) / (standard deviation + 1e-6), by group; [N].

    ``values``, ``ids``, ``counts`` are [N]: value n belongs to group ``ids[n]`` and stands for ``counts[n]``
    equal values. A count of 0 means: compared with the group without being part of it. The standard deviation
    is the unbiased one (ddof = 1). A group of exactly one value gives 0, or with ``lone_keeps_value`` the
    value itself. Source: public GiGPO implementation.
    """
    if values.size == 0:
        return values.copy()
    size = int(ids.max()) + 1
    total = np.bincount(ids, weights=counts, minlength=size)
    mean = np.bincount(ids, weights=values * counts, minlength=size) / np.maximum(total, 1.0)
    lone = total <= 1.0
    if lone_keeps_value:
        mean[lone] = 0.0
    deviation: Floats = values - mean[ids]
    if normalize == "mean":
        return deviation
    variance = np.bincount(ids, weights=counts * deviation**2, minlength=size) / np.maximum(total - 1.0, 1.0)
    scale = np.where(lone, 1.0, np.sqrt(variance) + EPSILON)
    result: Floats = deviation / scale[ids]
    return result


def returns_to_go(rewards: Sequence[float], gamma: float) -> list[float]:
    """[T] discounted sums ``r_t + gamma * r_(t+1) + ...`` of one trajectory's step rewards [T]."""
    result = [0.0] * len(rewards)
    running = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        running = rewards[t] + gamma * running
        result[t] = running
    return result
