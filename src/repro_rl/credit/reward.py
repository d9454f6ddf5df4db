"""The composite reward of RePro, each term apart, and the reward of the reflection itself.

Units: every coefficient is in reward units, and the environments here pay 10 for a win. With ``beta = 1``
going from no progress to a win adds 1 in all, a tenth of the win; ``beta = 10`` would pay as much as the win
itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from repro_rl.credit.baseline import check_choice
from repro_rl.errors import ConfigError
from repro_rl.types import Trajectory

Shaping = Literal["none", "retrospective", "online", "oracle", "linear"]
Alignment = Literal["none", "retrospective", "oracle", "linear"]
Source = Literal["retrospective", "online", "oracle", "linear"]
Anchor = Literal["none", "clip", "outcome"]

TERMS = ("env", "shaping", "alignment", "format", "boundary", "invalid")
REFLECTION_TERMS = ("format", "anchor", "boundary")
FAILURE_CAP = 0.99  # METHOD: P_T < 100 on a failure (our decision)


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Which terms the composite reward has and their weights, in reward units. Raises ConfigError."""

    shaping: Shaping = "retrospective"  # where P_t comes from in beta * (P_t - P_(t-1))
    beta: float = 1.0  # reward units for 0 -> 100 % progress
    alignment: Alignment = "retrospective"  # what q_t is compared with
    alpha: float = 0.5  # reward units for being wrong by 100 %
    align_to: Literal["after", "before"] = "after"  # q_t against P_t, or against P_(t-1)
    format_coef: float = 0.1  # paid for a completion with any parse defect
    boundary_coef: float = 0.0  # paid for q_t = 100 anywhere but at the last step of a success
    invalid_penalty: float = 0.1  # paid for an action the environment refused (GiGPO recipes)
    anchor: Anchor = "clip"  # what the known outcome does to retrospective values

    def __post_init__(self) -> None:
        sources = ("retrospective", "online", "oracle", "linear")
        check_choice("reward.shaping", self.shaping, ("none", *sources))
        check_choice("reward.alignment", self.alignment, ("none", "retrospective", "oracle", "linear"))
        check_choice("reward.align_to", self.align_to, ("after", "before"))
        check_choice("reward.anchor", self.anchor, ("none", "clip", "outcome"))
        for name in ("beta", "alpha", "format_coef", "boundary_coef", "invalid_penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"reward.{name} is {value}; give a finite number >= 0 (penalties are subtracted)."
                )


def progress_series(trajectory: Trajectory, source: Source, *, anchor: Anchor = "clip") -> list[float] | None:
    """Return P_0..P_T as fractions 0..1, [T + 1] with P_0 = 0, or None where ``source`` has nothing to say.

    - ``"retrospective"``: the reflection's values; None without a valid reflection.
    - ``"online"``: P_t = q_t; a missing q_t repeats the last value; None when no step has one.
    - ``"oracle"``: the environment's ground truth; None when any step lacks it.
    - ``"linear"``: t/T on a success, else all 0 (the control that knows only the outcome).

    ``anchor`` uses the known outcome, on retrospective values only (paper: P_T = 100 on success; the rest is
    our decision). ``"clip"``: success sets P_T to 1, failure caps every P_t at 0.99. ``"outcome"``: success
    sets P_T to 1, failure lowers P_T to at most the score. ``"none"``: as the policy said.
    Raises ConfigError for an unknown ``source`` or ``anchor``.
    """
    check_choice("progress source", source, ("retrospective", "online", "oracle", "linear"))
    check_choice("anchor", anchor, ("none", "clip", "outcome"))
    steps = trajectory.steps
    if source == "linear":
        return [t / len(steps) if trajectory.won else 0.0 for t in range(len(steps) + 1)] if steps else [0.0]
    if source == "oracle":
        truth = [step.truth for step in steps if step.truth is not None]
        return [0.0, *truth] if len(truth) == len(steps) else None
    if source == "online":
        if all(step.online is None for step in steps):
            return None
        series = [0.0]
        for step in steps:
            series.append(series[-1] if step.online is None else step.online / 100)
        return series
    values = None if trajectory.reflection is None else trajectory.reflection.values
    if values is None or len(values) != len(steps):
        return None
    return _anchored([value / 100 for value in values], trajectory, anchor)


def _anchored(values: list[float], trajectory: Trajectory, anchor: Anchor) -> list[float]:
    """Apply the outcome to P_1..P_T and put P_0 in front."""
    if values and anchor != "none":
        if trajectory.won:
            values[-1] = 1.0
        elif anchor == "clip":
            values = [min(value, FAILURE_CAP) for value in values]
        else:
            values[-1] = min(values[-1], trajectory.score)
    return [0.0, *values]


def composite_rewards(
    trajectory: Trajectory,
    settings: RewardSettings,
    *,
    expects_online: bool,
    retrospective: list[float] | None = None,
) -> list[dict[str, float]]:
    """Return the reward terms of every step, T dicts with the keys ``TERMS``; they sum to r_t (paper).

    - env: what the environment paid
    - shaping: ``beta * (P_t - P_(t-1))``; 0 without a progress series
    - alignment: ``-alpha * |q_t - P_t|`` (``P_(t-1)`` with ``align_to="before"``); a missing q_t costs the
      full alpha when the prompt asked for progress (``expects_online``); 0 without a progress series
    - format, boundary, invalid: the penalties of RewardSettings

    ``retrospective``: P_0..P_T in place of the trajectory's own judgement (``credit.pool``).
    """
    gains = _series(trajectory, settings, settings.shaping, retrospective)
    aligned = _series(trajectory, settings, settings.alignment, retrospective)
    last = len(trajectory.steps) - 1
    rows = []
    for index, step in enumerate(trajectory.steps):
        terms = dict.fromkeys(TERMS, 0.0)
        terms["env"] = float(step.env_reward)
        if gains is not None:
            terms["shaping"] = settings.beta * (gains[index + 1] - gains[index])
        if aligned is not None:
            target = aligned[index + 1 if settings.align_to == "after" else index]
            if step.online is not None:
                terms["alignment"] = -settings.alpha * abs(step.online / 100 - target)
            elif expects_online:
                terms["alignment"] = -settings.alpha
        if step.defects:
            terms["format"] = -settings.format_coef
        if step.online == 100 and not (trajectory.won and index == last):
            terms["boundary"] = -settings.boundary_coef
        if not step.valid:
            terms["invalid"] = -settings.invalid_penalty
        rows.append(terms)
    return rows


def _series(
    trajectory: Trajectory, settings: RewardSettings, source: Shaping, retrospective: list[float] | None
) -> list[float] | None:
    if source == "none":
        return None
    if source == "retrospective" and retrospective is not None:
        return retrospective
    return progress_series(trajectory, source, anchor=settings.anchor)


def reflection_reward(trajectory: Trajectory) -> dict[str, float]:
    """Return the terms (``REFLECTION_TERMS``, each 0..1) of the reflection's reward; it is their sum.

    Only what is *known* is rewarded (our decision), from the values as the policy wrote them, before any
    anchor:

    - format: 1 when there are T valid values
    - anchor: success: P_T; failure: 1 when P_T < 100, else 0; a failure with a score strictly between 0 and 1
      and P_T < 100: ``1 - |P_T - score|``
    - boundary: 1 when no P_t before the end is 100

    All 0 when there is no valid reflection.
    """
    terms = dict.fromkeys(REFLECTION_TERMS, 0.0)
    values = None if trajectory.reflection is None else trajectory.reflection.values
    if not values or len(values) != len(trajectory.steps):
        return terms
    final = values[-1] / 100
    terms["format"] = 1.0
    if trajectory.won:
        terms["anchor"] = final
    elif final < 1:
        terms["anchor"] = 1.0 - abs(final - trajectory.score) if 0 < trajectory.score < 1 else 1.0
    terms["boundary"] = 0.0 if 100 in values[:-1] else 1.0
    return terms
