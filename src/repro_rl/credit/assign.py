"""Write rewards and advantages into the records of an iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from repro_rl.credit.call import PerTrajectory, call_rule
from repro_rl.credit.gate import gate, judge_agreement
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.pool import judged_series
from repro_rl.credit.reward import composite_rewards, reflection_reward
from repro_rl.credit.rules import CREDIT, reads
from repro_rl.credit.settings import CreditSettings
from repro_rl.credit.sources import Series, group_series
from repro_rl.credit.states import graph_inputs
from repro_rl.errors import ConfigError, clause
from repro_rl.types import Group, Step, Trajectory

PROGRESS_TERMS = ("alignment", "format", "boundary")  # credited to progress tokens by advantage_on="split"


def assign_credit(groups: Sequence[Group], settings: CreditSettings) -> None:
    """Set ``terms``, ``advantage`` and ``progress_advantage`` of every step, in place.

    Step reward: the sum of all terms. Episode return: env + invalid + format + boundary + overlong. Shaping
    and alignment join it only on request (``shaping_in_episode``, ``alignment_in_episode``; decision D15).
    Shaping telescopes to P_T - P_0: there it would be a constant on success and the judge's noise on failure.
    A rule without a step part, such as "grpo", therefore sees neither unless asked to.

    ``advantage_on="split"`` credits progress tokens separately from the action (decision D18). The alignment
    is then recorded, but enters neither the step reward nor the episode return. ``progress_advantage`` is
    otherwise 0.

    ``judge_pool="state"``: the judged progress of a state is the group's mean (``credit.pool``).
    ``judge_gate="graph"``: shaping is weighed by the judge's agreement with the outcomes (``credit.gate``).
    ``anchor_key``: what the rule takes for a state. A rule also finds, by the names of ``CreditInputs``, what
    the records hold; ``judged`` where ``value_source`` names a source, ``hindsight_log_prob`` where the
    completions have been scored.

    Each ``Group`` object is a group of its own, even where two name the same task. The outcome of a failed
    trajectory is unknown: it gets terms, advantage 0, and no part in any baseline (decision D19).
    Raises UnknownNameError for an unknown rule, and ConfigError unless the rule returns one finite number for
    each step.
    """
    CREDIT.get(settings.credit)  # an unknown name is told before anything is changed
    excluded = {"alignment"} if settings.advantage_on == "split" else set()
    in_episode = ["env", "invalid", "format", "boundary"]
    in_episode += ["shaping"] * settings.shaping_in_episode + ["alignment"] * settings.alignment_in_episode
    in_episode += ["overlong"] * bool(settings.overlong.factor)
    in_episode = [name for name in in_episode if name not in excluded]
    trajectories: list[Trajectory] = []
    names: list[str] = []
    judged: list[Series] | None = None if settings.value_source == "outcome" else []
    weight = gate(judge_agreement(groups, settings)) if settings.judge_gate == "graph" else 1.0
    for index, group in enumerate(groups):
        _set_terms(group, settings, weight)
        completed = [trajectory for trajectory in group.trajectories if not trajectory.failed]
        trajectories += completed
        names += [f"{index}:{group.task_id}"] * len(completed)
        if judged is not None:
            judged += group_series(Group(group.task_id, completed), settings.value_source, settings)
    rewards = [
        [sum(value for name, value in step.terms.items() if name not in excluded) for step in t.steps]
        for t in trajectories
    ]
    returns = [sum(step.terms[name] for step in t.steps for name in in_episode) for t in trajectories]
    inputs = rule_inputs(trajectories, names, settings)
    inputs.rewards, inputs.episode_returns, inputs.judged = rewards, returns, judged
    advantages = call_rule(settings.credit, inputs, settings)["advantages"]
    for trajectory, row in zip(
        trajectories, _checked(settings.credit, advantages, trajectories), strict=True
    ):
        for step, value in zip(trajectory.steps, row, strict=True):
            step.advantage = value
    if settings.advantage_on == "split":
        for group in groups:
            _credit_progress_tokens(group)


def rule_inputs(
    trajectories: Sequence[Trajectory], groups: Sequence[str], settings: CreditSettings
) -> CreditInputs:
    """What the records of these trajectories hold for a rule, but for rewards and judgements.

    Raises ConfigError where the rule reads hindsight log-probs and a completion has none.
    """
    inputs = graph_inputs(trajectories, groups, settings.anchor_key)
    inputs.actions = [[step.action for step in t.steps] for t in trajectories]
    inputs.valid = [[step.valid for step in t.steps] for t in trajectories]
    inputs.texts = [[step.observation for step in t.steps] for t in trajectories]
    inputs.token_counts = [[step.completion.tokens for step in t.steps] for t in trajectories]
    if settings.outcome == "score":
        inputs.scores = [t.score for t in trajectories]
    if "hindsight_log_prob" in reads(settings.credit):
        inputs.hindsight_log_prob = [[_hindsight(step) for step in t.steps] for t in trajectories]
    return inputs


def _hindsight(step: Step) -> list[float]:
    completion = step.completion
    if not len(completion.token_ids):
        return []
    if "hindsight" not in completion.scored:
        raise ConfigError(
            "The credit rule reads hindsight log-probs, and a completion has none: a training run scores "
            "them first (completion.scored['hindsight'])."
        )
    return [float(value) for value in completion.scored["hindsight"]]


def _checked(rule: str, advantages: Any, trajectories: Sequence[Trajectory]) -> list[list[float]]:
    """The rule's answer as numbers. Raises ConfigError unless it is one finite number for each step.

    One number a trajectory stands for each of its steps.
    """
    must = f"The credit rule {rule!r} must return one finite number per step, in the shape of its rewards"
    try:
        if isinstance(advantages, PerTrajectory):
            advantages = advantages.per_step([trajectory.length for trajectory in trajectories])
        rows = [[float(value) for value in row] for row in advantages]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{must}; it returned {type(advantages).__name__}: {clause(error)}.") from error
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


def _set_terms(group: Group, settings: CreditSettings, weight: float) -> None:
    """Set the reward terms of every step, its shaping times ``weight``, and both advantages to 0."""
    known: dict[str, list[Series]] = {
        source: judged_series(group, settings)
        if source == "retrospective"
        else group_series(group, source, settings)
        for source in {settings.shaping, settings.alignment} - {"none"}
    }
    for index, trajectory in enumerate(group.trajectories):
        rows = composite_rewards(trajectory, settings, {name: rows[index] for name, rows in known.items()})
        for step, terms in zip(trajectory.steps, rows, strict=True):
            terms["shaping"] *= weight
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
