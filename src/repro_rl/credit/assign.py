"""Write rewards and advantages into the records of an iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from repro_rl.credit.pool import pooled_series
from repro_rl.credit.reward import composite_rewards, reflection_reward
from repro_rl.credit.rules import CREDIT
from repro_rl.credit.settings import CreditSettings
from repro_rl.errors import ConfigError
from repro_rl.types import Group, Trajectory

PROGRESS_TERMS = ("alignment", "format", "boundary")  # credited to progress tokens by advantage_on="split"


def assign_credit(groups: Sequence[Group], settings: CreditSettings) -> None:
    """Set ``terms``, ``advantage`` and ``progress_advantage`` of every step, in place.

    Step reward: the sum of all terms. Episode return: env + invalid + format + boundary. Shaping and
    alignment join it only on request (``shaping_in_episode``, ``alignment_in_episode``; decision D15).
    Shaping telescopes to P_T - P_0: there it would be a constant on success and the judge's noise on failure.
    A rule without a step part, such as "grpo", therefore sees neither unless asked to.

    ``advantage_on="split"`` credits progress tokens separately from the action (decision D18). The alignment
    is then recorded, but enters neither the step reward nor the episode return. ``progress_advantage`` is
    otherwise 0.

    ``judge_pool="state"``: the judged progress of a state is the group's mean (``pooled_series``).

    Each ``Group`` object is a group of its own, even where two name the same task. The outcome of a failed
    trajectory is unknown: it gets terms, advantage 0, and no part in any baseline (decision D19).
    Raises UnknownNameError for an unknown rule, and ConfigError unless the rule returns one finite number for
    each step.
    """
    rule = CREDIT.get(settings.credit)
    excluded = {"alignment"} if settings.advantage_on == "split" else set()
    in_episode = ["env", "invalid", "format", "boundary"]
    in_episode += ["shaping"] * settings.shaping_in_episode + ["alignment"] * settings.alignment_in_episode
    in_episode = [name for name in in_episode if name not in excluded]
    trajectories: list[Trajectory] = []
    names: list[str] = []
    for index, group in enumerate(groups):
        _set_terms(group, settings)
        completed = [trajectory for trajectory in group.trajectories if not trajectory.failed]
        trajectories += completed
        names += [f"{index}:{group.task_id}"] * len(completed)
    rewards = [
        [sum(value for name, value in step.terms.items() if name not in excluded) for step in t.steps]
        for t in trajectories
    ]
    returns = [sum(step.terms[name] for step in t.steps for name in in_episode) for t in trajectories]
    anchors = [[step.anchor for step in t.steps] for t in trajectories]
    advantages = rule(rewards, names, anchors, settings, returns)
    for trajectory, row in zip(
        trajectories, _checked(settings.credit, advantages, trajectories), strict=True
    ):
        for step, value in zip(trajectory.steps, row, strict=True):
            step.advantage = value
    if settings.advantage_on == "split":
        for group in groups:
            _credit_progress_tokens(group)


def _checked(rule: str, advantages: Any, trajectories: Sequence[Trajectory]) -> list[list[float]]:
    """The rule's answer as numbers. Raises ConfigError unless it is one finite number for each step."""
    must = f"The credit rule {rule!r} must return one finite number per step, in the shape of its rewards"
    try:
        rows = [[float(value) for value in row] for row in advantages]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{must}; it returned {type(advantages).__name__}: {error}.") from error
    if len(rows) != len(trajectories):
        raise ConfigError(f"{must}; it returned {len(rows)} rows for {len(trajectories)} trajectories.")
    for row, trajectory in zip(rows, trajectories, strict=True):
        where = f"for {trajectory.task_id}, rollout {trajectory.rollout}"
        if len(row) != trajectory.length:
            raise ConfigError(f"{must}; it returned {len(row)} values for {trajectory.length} steps {where}.")
        for t, value in enumerate(row, start=1):
            if not math.isfinite(value):
                raise ConfigError(f"{must}; it returned {value} {where}, step {t}.")
    return rows


def _set_terms(group: Group, settings: CreditSettings) -> None:
    """Set the reward terms of every step, and both advantages to 0."""
    pooled = settings.judge_pool == "state"
    judged = pooled_series(group, settings.anchor) if pooled else [None] * len(group.trajectories)
    for trajectory, series in zip(group.trajectories, judged, strict=True):
        rows = composite_rewards(trajectory, settings, series)
        for step, terms in zip(trajectory.steps, rows, strict=True):
            step.terms, step.advantage, step.progress_advantage = terms, 0.0, 0.0


def _credit_progress_tokens(group: Group) -> None:
    """``progress_advantage`` = alignment + format + boundary terms minus their mean over the group's steps.

    A failed trajectory stays at 0 and has no part in the mean.
    """
    completed = [t for t in group.trajectories if not t.failed]
    rows = [
        [sum(step.terms.get(term, 0.0) for term in PROGRESS_TERMS) for step in t.steps] for t in completed
    ]
    flat = [value for row in rows for value in row]
    mean = sum(flat) / len(flat) if flat else 0.0
    for trajectory, row in zip(completed, rows, strict=True):
        for step, value in zip(trajectory.steps, row, strict=True):
            step.progress_advantage = value - mean


def reflection_advantages(groups: Sequence[Group], trained: Sequence[frozenset[int]] | None = None) -> None:
    """Set ``terms``, ``advantage`` and ``trained`` of every reflection, in place.

    The advantage is the reflection's reward minus the mean of its group, so a reflection alone in its group
    gets 0 (decision D22). ``trained``: for each group, the indices of the trajectories whose reflections are
    trained on; None: all. Reflections that are not trained on count in the mean too. The reflection of a
    failed trajectory gets advantage 0 and has no part in the mean.
    """
    for group_index, group in enumerate(groups):
        counted = []
        for index, trajectory in enumerate(group.trajectories):
            reflection = trajectory.reflection
            if reflection is None:
                continue
            reflection.terms, reflection.advantage = reflection_reward(trajectory), 0.0
            reflection.trained = trained is None or index in trained[group_index]
            if not trajectory.failed:
                counted.append(reflection)
        if counted:
            mean = sum(sum(reflection.terms.values()) for reflection in counted) / len(counted)
            for reflection in counted:
                reflection.advantage = sum(reflection.terms.values()) - mean
