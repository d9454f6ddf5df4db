"""The composite reward of RePro as separate terms, and the reward of the reflection itself.

Every coefficient is in reward units (decision D11), and the environments here pay 10 for a win. With
``beta = 1`` an episode from no progress to a win gains 1 in all, a tenth of the win.
"""

from __future__ import annotations

from collections.abc import Mapping

from repro_rl.credit.dapo import overlong_penalty
from repro_rl.credit.settings import RewardSettings
from repro_rl.credit.sources import Series, progress_series
from repro_rl.types import Trajectory

TERMS = ("env", "shaping", "alignment", "format", "boundary", "invalid")
REFLECTION_TERMS = ("format", "anchor", "boundary")


def composite_rewards(
    trajectory: Trajectory, settings: RewardSettings, known: Mapping[str, Series] | None = None
) -> list[dict[str, float]]:
    """Return the reward terms of every step, T dicts with the keys ``TERMS``; they sum to r_t (paper).

    - env: the environment's reward
    - shaping: ``beta * (P_t - P_(t-1))``, or with ``shaping_form="raw"`` ``beta * P_t``; 0 without a progress
      series. In the raw form of "online" a missing q_t earns 0: its series repeats the last estimate, which
      is paid already (decision D14)
    - alignment: ``-alpha * |q_t - P_t|``, with ``align_to="before"`` against ``P_(t-1)`` (decision D2). A
      missing q_t costs alpha when the prompt asked for one (``settings.progress``; decision D12). 0 without a
      progress series
    - format: ``-format_coef`` for a completion with any parse defect
    - boundary: ``-boundary_coef`` for q_t = 100 anywhere but at the last step of a success (decision D13)
    - invalid: ``-invalid_penalty`` for an action that the environment refused
    - overlong, only where ``overlong.factor`` is set: the soft penalty on long answers (``credit.dapo``)

    P_t and q_t are fractions 0..1 here. ``known``: source of progress -> P_0..P_T, [T + 1], or None. It
    replaces what the source itself answers for this trajectory, as the group's pooled series does
    (``credit.pool``).
    """
    known = {} if known is None else known
    gains = _series(trajectory, settings, settings.shaping, known)
    aligned = _series(trajectory, settings, settings.alignment, known)
    overlong = settings.overlong
    last = len(trajectory.steps) - 1
    rows = []
    for index, step in enumerate(trajectory.steps):
        terms = dict.fromkeys(TERMS, 0.0)
        terms["env"] = float(step.env_reward)
        if gains is not None:
            terms["shaping"] = settings.beta * _earned(gains, index, step.online is None, settings)
        if aligned is not None:
            target = aligned[index + 1 if settings.align_to == "after" else index]
            if step.online is not None:
                terms["alignment"] = -settings.alpha * abs(step.online / 100 - target)
            elif settings.progress:
                terms["alignment"] = -settings.alpha
        if step.defects:
            terms["format"] = -settings.format_coef
        if step.online == 100 and not (trajectory.won and index == last):
            terms["boundary"] = -settings.boundary_coef
        if not step.valid:
            terms["invalid"] = -settings.invalid_penalty
        if overlong.factor and overlong.max_length is not None:
            length = step.completion.tokens
            terms["overlong"] = overlong_penalty(
                length, overlong.max_length, overlong.buffer, overlong.factor
            )
        rows.append(terms)
    return rows


def _earned(series: list[float], index: int, silent: bool, settings: RewardSettings) -> float:
    """What step ``index`` (from 0) earns of P_0..P_T, before beta; ``silent``: it reported no progress."""
    if settings.shaping_form == "gain":
        return series[index + 1] - series[index]
    return 0.0 if silent and settings.shaping == "online" else series[index + 1]


def _series(
    trajectory: Trajectory, settings: RewardSettings, source: str, known: Mapping[str, Series]
) -> Series:
    """P_0..P_T, [T + 1]; None without a source, or where it gives no values."""
    if source == "none":
        return None
    if source in known:
        return known[source]
    own = settings.progress_settings.get(source)
    return progress_series(trajectory, source, anchor=settings.anchor, settings=own)


def reflection_reward(trajectory: Trajectory) -> dict[str, float]:
    """Return the terms (``REFLECTION_TERMS``, each 0..1) of the reflection's reward; it is their sum.

    Only agreement with the known outcome is rewarded (decision D21). The values are those that the policy
    wrote, before any anchor:

    - format: 1 when there are T valid values
    - anchor: on success P_T / 100. On failure 0 when P_T = 100, otherwise 1; with a score strictly between
      0 and 1, otherwise ``1 - |P_T / 100 - score|``
    - boundary: 1 when no P_t before the end is 100

    All 0 when there is no valid reflection.
    """
    terms = dict.fromkeys(REFLECTION_TERMS, 0.0)
    values = trajectory.judged
    if not values:
        return terms
    final = values[-1] / 100
    terms["format"] = 1.0
    if trajectory.won:
        terms["anchor"] = final
    elif final < 1:
        terms["anchor"] = 1.0 - abs(final - trajectory.score) if 0 < trajectory.score < 1 else 1.0
    terms["boundary"] = 0.0 if 100 in values[:-1] else 1.0
    return terms
