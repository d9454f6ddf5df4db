"""What credit rules read: the trajectories of a batch by name, checked, and the arrays that rules share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro_rl.credit.baseline import (
    EpisodeBaseline,
    Floats,
    Normalize,
    finite_array,
    length_of,
    normalise,
    number_keys,
    returns_to_go,
)
from repro_rl.credit.checks import check_lengths, check_values, has_rows
from repro_rl.errors import ConfigError

Indices = NDArray[np.intp]
# Inputs that a run has only by a setting, and what says so; "": a run's records never hold them.
BY_SETTING = {
    "scores": "method.outcome=score",
    "judged": "method.value_source=SOURCE",
    **dict.fromkeys(("outcome_rewards", "turn_rewards", "first_step_after_tool"), ""),
}
LENGTHS_FROM = ("rewards", "anchors", "actions", "valid", "texts", "token_counts", "hindsight_log_prob")


@dataclass(slots=True)
class CreditInputs:
    """N trajectories of T_n steps, R steps in all. A rule reads what it names; None: not known.

    The names are those a rule asks for, and those of ``repro_rl.credit.advantages``.
    """

    groups: Sequence[Hashable]  # [N], equal for the rollouts of one task
    rewards: Sequence[Sequence[float]] | None = None  # N x T_n
    anchors: Sequence[Sequence[Hashable]] | None = None  # N x T_n, key of the state before the action
    final_anchors: Sequence[Hashable] | None = None  # [N], key of the state after the last action
    reached: Sequence[Sequence[Hashable]] | None = None  # N x T_n, key of the state after the action
    actions: Sequence[Sequence[str]] | None = None  # N x T_n, parsed actions
    valid: Sequence[Sequence[bool]] | None = None  # N x T_n, False: the environment refused the action
    won: Sequence[bool] | None = None  # [N]
    scores: Sequence[float] | None = None  # [N], the outcome as 0..1; None: ``won``
    episode_returns: Sequence[float] | None = None  # [N], what the episode part compares
    lengths: Sequence[int] | None = None  # [N], T_n, where nothing else tells
    texts: Sequence[Sequence[str]] | None = None  # N x T_n, observations before the action
    token_counts: Sequence[Sequence[int]] | None = None  # N x T_n, tokens of each answer
    hindsight_log_prob: Sequence[Sequence[Sequence[float]]] | None = None  # N x T_n lists, one a token
    judged: Sequence[Sequence[float] | None] | None = None  # N x T_n + 1, P_0..P_T as fractions; None: none
    first_step_after_tool: Sequence[int | None] | None = None  # [N], 0-based; None: no tool was used
    turn_rewards: Sequence[Any] | None = None  # [N], or N x T_n
    outcome_rewards: Sequence[float] | None = None  # [N]
    rule: str = "rule"  # the name that messages call it by
    details: bool = False  # also compute figures that only explain the advantages

    def __post_init__(self) -> None:
        """Raises ConfigError for lengths that do not agree, and for values that ``checks`` refuses."""
        count, given = length_of(f"{self.rule}: groups", self.groups), self._given()
        for name, value in given.items():
            entries = length_of(f"{self.rule}: {name}", value)
            if entries != count:
                raise ConfigError(
                    f"{self.rule}: {name} has {entries} entries and groups {count}; give one a trajectory."
                )
        check_values(self.rule, given)
        if self.lengths is None:
            self.lengths = self._found_lengths()
        if self.reached is None and self.anchors is not None and self.final_anchors is not None:
            self.reached = [
                [*keys[1:], last][: len(keys)]
                for keys, last in zip(self.anchors, self.final_anchors, strict=True)
            ]
        check_lengths(self.rule, self._given())

    def _given(self) -> dict[str, Any]:
        names = [field.name for field in fields(self) if field.name not in ("rule", "details")]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def _found_lengths(self) -> list[int] | None:
        for name in LENGTHS_FROM:
            rows = getattr(self, name)
            if rows is not None:
                return [
                    length_of(f"{self.rule}: {name} of trajectory {n}", row) for n, row in enumerate(rows)
                ]
        if self.turn_rewards is not None and has_rows(self.turn_rewards):
            return [len(row) for row in self.turn_rewards]
        return None

    def need(self, name: str) -> Any:
        """The input of that name. Raises ConfigError where it is not known."""
        value = getattr(self, name)
        if value is None:
            raise ConfigError(
                f"The credit rule {self.rule!r} needs the input {name!r}, which was not given{in_runs(name)}."
            )
        return value

    # Arrays over all steps [R] or trajectories [N] ------------------------------------------------

    @property
    def sizes(self) -> Indices:
        """[N], T_n."""
        return np.asarray(self.need("lengths"), dtype=np.intp)

    @property
    def trajectory(self) -> Indices:
        """[R], the trajectory of each step."""
        return np.repeat(np.arange(len(self.groups)), self.sizes)

    @property
    def tasks(self) -> Indices:
        """[N], a number for each task."""
        return number_keys("group names", self.groups)

    @property
    def step_tasks(self) -> Indices:
        """[R], the task of each step."""
        return np.repeat(self.tasks, self.sizes)

    def states(self) -> Indices:
        """[R], a number for each (task, state before the action)."""
        keys = [key for row in self.need("anchors") for key in row]
        return number_keys("anchors", list(zip(self.step_tasks.tolist(), keys, strict=True)))

    def flat(self, name: str) -> Floats:
        """[R], an input of one number a step."""
        return finite_array(name, (float(value) for row in self.need(name) for value in row))

    def returns(self) -> Floats:
        """[N], the episode returns: as given, or the sums of the rewards."""
        if self.episode_returns is not None:
            return np.asarray(self.episode_returns, dtype=np.float64)
        return np.asarray([sum(row) for row in self.need("rewards")], dtype=np.float64)

    def outcomes(self) -> Floats:
        """[N], 0..1: the scores where they are given, else 1 for a win."""
        known = self.scores if self.scores is not None else self.need("won")
        return finite_array("outcomes", (float(value) for value in known))

    def to_go(self, gamma: float) -> Floats:
        """[R], the discounted sum of the rewards from each step on."""
        return finite_array("rewards", (v for row in self.need("rewards") for v in returns_to_go(row, gamma)))

    def episode_part(self, normalize: Normalize, baseline: EpisodeBaseline = "steps") -> Floats:
        """[N], GiGPO's episode part: the return relative to its task's step rows, or trajectories."""
        sizes = self.sizes
        counts = np.asarray(sizes if baseline == "steps" else sizes > 0, dtype=np.float64)
        return normalise(self.returns(), self.tasks, counts, normalize, lone_keeps_value=True)

    def per_step(self, values: NDArray[Any]) -> NDArray[Any]:
        """[R] from [N]: a trajectory's value at each of its steps."""
        return np.repeat(values, self.sizes)

    def rows(self, values: NDArray[Any]) -> list[list[Any]]:
        """[R] as N lists of T_n."""
        flat, ends = values.tolist(), np.cumsum(self.sizes).tolist()
        return [flat[end - size : end] for end, size in zip(ends, self.sizes.tolist(), strict=True)]


def in_runs(name: str) -> str:
    """What a sentence on a missing input says of runs, which have it by a setting or not at all; else ""."""
    if name not in BY_SETTING:
        return ""
    setting = BY_SETTING[name]
    return f"; a run has it with {setting}" if setting else "; the records of a run do not hold it"
