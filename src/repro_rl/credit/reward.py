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
from repro_rl.credit.sources import SOURCES, Anchor, progress_series
from repro_rl.errors import ConfigError
from repro_rl.types import Trajectory

TERMS = ("env", "shaping", "alignment", "format", "boundary", "invalid")
REFLECTION_TERMS = ("format", "anchor", "boundary")


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Which terms the composite reward has and their weights, in reward units. Raises ConfigError."""

    shaping: str = "retrospective"  # where P_t comes from in beta * (P_t - P_(t-1)), or "none"
    beta: float = 1.0  # reward units for 0 -> 100 % progress
    alignment: str = "retrospective"  # what q_t is compared with, or "none"
    alpha: float = 0.5  # reward units for being wrong by 100 %
    align_to: Literal["after", "before"] = "after"  # q_t against P_t, or against P_(t-1)
    format_coef: float = 0.1  # paid for a completion with any parse defect
    boundary_coef: float = 0.0  # paid for q_t = 100 anywhere but at the last step of a success
    invalid_penalty: float = 0.1  # paid for an action the environment refused (GiGPO recipes)
    anchor: Anchor = "clip"  # what the known outcome does to retrospective values

    def __post_init__(self) -> None:
        sources = SOURCES.names()
        check_choice("method.shaping", self.shaping, ("none", *sources))
        check_choice("method.alignment", self.alignment, ("none", *(s for s in sources if s != "online")))
        check_choice("method.align_to", self.align_to, ("after", "before"))
        check_choice("method.anchor", self.anchor, ("none", "clip", "outcome"))
        for name in ("beta", "alpha", "format_coef", "boundary_coef", "invalid_penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"method.{name} is {value}; give a finite number >= 0 (penalties are subtracted)."
                )


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
    trajectory: Trajectory, settings: RewardSettings, source: str, retrospective: list[float] | None
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
