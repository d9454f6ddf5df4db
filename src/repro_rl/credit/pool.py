"""Pooled judgement: the retrospective progress of a state is the mean over the group's reflections.

The judge gives every step of every episode its own number, so one state gets many. Shaping by potential
differences keeps the optimal policy only when the potential is a function of the state (Ng, Harada and
Russell 1999). The mean over all visits in the group is such a function. It also has less noise, and depends
less on the episode's outcome. Decision D24; not in the paper.
"""

from __future__ import annotations

from collections.abc import Hashable

from repro_rl.credit.settings import AnchorKey, RewardSettings
from repro_rl.credit.sources import Anchor, Series, progress_series
from repro_rl.credit.states import reached_by, states_of
from repro_rl.types import Group


def pooled_series(group: Group, anchor: Anchor, anchor_key: AnchorKey = "state") -> list[list[float] | None]:
    """Retrospective P_0..P_T (fractions, [T + 1] each) of the group's trajectories, pooled by state.

    P_t is the mean of all judgements, after ``anchor``, of the state that step t reached, over every visit in
    the group. The start state is 0 by definition (decision D1), also when it is reached again. A step whose
    state is unknown (``reached`` is None) keeps its own value. None for a trajectory without a valid
    reflection. Failed trajectories get the means too, but their judgements do not enter them. ``anchor_key``:
    what counts as one state.
    """
    own = [progress_series(trajectory, "retrospective", anchor=anchor) for trajectory in group.trajectories]
    judgements: dict[Hashable, list[float]] = {}
    for trajectory, series in zip(group.trajectories, own, strict=True):
        if series is None or trajectory.failed:
            continue
        for state, value in zip(reached_by(trajectory, anchor_key), series[1:], strict=True):
            if state is not None:
                judgements.setdefault(state, []).append(value)
    means = {state: sum(values) / len(values) for state, values in judgements.items()}
    pooled: list[list[float] | None] = []
    for trajectory, series in zip(group.trajectories, own, strict=True):
        if series is None or not trajectory.steps:
            pooled.append(series)
            continue
        start = states_of(trajectory, anchor_key)[0][0]
        values = (
            0.0 if state is not None and state == start else means.get(state, value)
            for state, value in zip(reached_by(trajectory, anchor_key), series[1:], strict=True)
        )
        pooled.append([0.0, *values])
    return pooled


def judged_series(group: Group, settings: RewardSettings) -> list[Series]:
    """Retrospective P_0..P_T of the trajectories as ``judge_pool`` says: their own, or pooled by state."""
    if settings.judge_pool == "state":
        return pooled_series(group, settings.anchor, settings.anchor_key)
    return [progress_series(t, "retrospective", anchor=settings.anchor) for t in group.trajectories]
