"""Progress that costs nothing: from the group's own state graph, and from log-probs of two models."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import numpy as np

from repro_rl.credit.parts import distances, following, means, steps_left
from repro_rl.credit.pool import judged_series
from repro_rl.credit.progress_advantage import progress_advantages
from repro_rl.credit.settings import RewardSettings
from repro_rl.credit.sources import GroupSource, Series, has_win, register_progress
from repro_rl.credit.states import graph_inputs
from repro_rl.errors import ConfigError
from repro_rl.types import Group


def graph_progress(group: Group, settings: RewardSettings) -> list[Series]:
    """``P_t = 1 - d(s'_t) / d(s_1)``, at least 0: how much nearer to success than the start, [T] each.

    d is GraphGPO's distance to success in the graph of the group's own rollouts. A win ends at 1. Without any
    win everything is 0. A failed trajectory has no part in the graph, and no series.
    """
    return _of_completed(group, settings, _by_distance)


def graph_values(group: Group, settings: RewardSettings) -> list[Series]:
    """``P_t = (V(s'_t) - V(s_1)) / (1 - V(s_1))``, at least 0, from values counted over visits, [T] each.

    V(s) is G2PO's: the mean over the group's visits of ``value_gamma ** (T - t + 1)`` on a win and 0 on a
    loss; after the end 1 or 0. So the start is 0 and a win ends at 1.
    """
    return _of_completed(group, settings, _by_value)


def graph_or_judged(group: Group, settings: RewardSettings) -> list[Series]:
    """The state graph's progress where a rollout of the task won, else the retrospective one, [T] each.

    The graph knows nothing of a task that nobody won, and there the judge is all that tells losses apart.
    """
    return graph_progress(group, settings) if has_win(group.trajectories) else _judged(group, settings)


def graph_value_or_judged(group: Group, settings: RewardSettings) -> list[Series]:
    """``graph_values`` where a rollout of the task won, else the retrospective progress, [T] each."""
    return graph_values(group, settings) if has_win(group.trajectories) else _judged(group, settings)


def judged_where_lost(group: Group, settings: RewardSettings) -> list[Series]:
    """The retrospective progress of a task that nobody won, [T] each; None in a task with a win.

    As ``method.value_source`` it leaves tasks with a win to the outcomes.
    """
    return [None] * len(group.trajectories) if has_win(group.trajectories) else _judged(group, settings)


def _judged(group: Group, settings: RewardSettings) -> list[Series]:
    return [None if values is None else values[1:] for values in judged_series(group, settings)]


def _by_distance(group: Group, settings: RewardSettings) -> list[list[float]]:
    inputs = graph_inputs(group.trajectories, [group.task_id] * len(group.trajectories), settings.anchor_key)
    before, after = (inputs.rows(values.astype(np.float64)) for values in distances(inputs))
    return [
        [max(0.0, 1.0 - value / start[0]) for value in row] for start, row in zip(before, after, strict=True)
    ]


def _by_value(group: Group, settings: RewardSettings) -> list[list[float]]:
    inputs = graph_inputs(group.trajectories, [group.task_id] * len(group.trajectories), settings.anchor_key)
    won = inputs.outcomes()
    discount = settings.value_gamma ** (steps_left(inputs) + 1).astype(np.float64)
    value = means(discount * inputs.per_step(won), inputs.states())
    rows = zip(inputs.rows(value), inputs.rows(following(inputs, value, won)), strict=True)
    # V(s_1) = 1 only without discount, where every state is worth as much as the start.
    return [
        [float(np.clip((v - here[0]) / (1 - here[0]), 0.0, 1.0)) if here[0] < 1 else 0.0 for v in row]
        for here, row in rows
    ]


def _of_completed(
    group: Group, settings: RewardSettings, series: Callable[[Group, RewardSettings], list[list[float]]]
) -> list[Series]:
    """``series`` of the trajectories that have steps and did not fail; None for the others."""
    counted = [n for n, t in enumerate(group.trajectories) if t.steps and not t.failed]
    result: list[Series] = [None] * len(group.trajectories)
    if counted:
        part = Group(group.task_id, [group.trajectories[n] for n in counted])
        for n, values in zip(counted, series(part, settings), strict=True):
            result[n] = values
    return result


def progress_advantage(group: Group, settings: RewardSettings) -> list[Series]:
    """The running sum of each step's Progress Advantage, [T] each: its gain is the advantage. Not bounded.

    Reads the policy's log-probs and those of the frozen reference, which training adds to each completion.
    Raises ConfigError where the latter are missing.
    """
    result: list[Series] = []
    for trajectory in group.trajectories:
        own, other = [], []
        for step in trajectory.steps:
            completion = step.completion
            if len(completion.token_ids) and "reference" not in completion.scored:
                raise ConfigError(
                    "The progress source 'progress_advantage' needs the reference's log-probs of every step; "
                    "training adds them where method.shaping asks for it."
                )
            own.append(completion.logprobs.tolist())
            other.append(completion.scored["reference"].tolist() if len(completion.token_ids) else [])
        values = progress_advantages(own, other, tokens=settings.progress_advantage.tokens)["step_advantages"]
        result.append(list(accumulate(values)))
    return result


register_progress("graph")(GroupSource(graph_progress))
register_progress("graph_or_judged")(GroupSource(graph_or_judged, judged=True, lost_only=True))
register_progress("graph_value")(GroupSource(graph_values))
register_progress("graph_value_or_judged")(GroupSource(graph_value_or_judged, judged=True, lost_only=True))
register_progress("judged_where_lost")(GroupSource(judged_where_lost, judged=True, lost_only=True))
register_progress("progress_advantage")(GroupSource(progress_advantage, bounded=False))
