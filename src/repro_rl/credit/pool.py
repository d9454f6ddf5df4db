"""Pooled judgement: the retrospective progress of a state is the mean over the group's reflections.

The judge gives every step of every episode its own number, so one state gets many. Shaping by potential
differences keeps the optimal policy only when the potential is a function of the state (Ng, Harada and
Russell 1999). The mean over all visits in the group is such a function. It also has less noise, and depends
less on the episode's outcome. Decision D24; not in the paper.
"""

from __future__ import annotations

from collections.abc import Hashable

from repro_rl.credit.sources import Anchor, progress_series
from repro_rl.types import Group


def pooled_series(group: Group, anchor: Anchor) -> list[list[float] | None]:
    """Retrospective P_0..P_T (fractions, [T + 1] each) of the group's trajectories, pooled by state.

    P_t is the mean of all judgements, after ``anchor``, of the state that step t reached, over every visit in
    the group. The start state is 0 by definition (decision D1), also when it is reached again. A step whose
    state is unknown (``reached`` is None) keeps its own value. None for a trajectory without a valid
    reflection. Failed trajectories get the means too, but their judgements do not enter them.
    """
    own = [progress_series(trajectory, "retrospective", anchor=anchor) for trajectory in group.trajectories]
    judgements: dict[Hashable, list[float]] = {}
    for trajectory, series in zip(group.trajectories, own, strict=True):
        if series is None or trajectory.failed:
            continue
        for step, value in zip(trajectory.steps, series[1:], strict=True):
            if step.reached is not None:
                judgements.setdefault(step.reached, []).append(value)
    means = {state: sum(values) / len(values) for state, values in judgements.items()}
    pooled: list[list[float] | None] = []
    for trajectory, series in zip(group.trajectories, own, strict=True):
        if series is None or not trajectory.steps:
            pooled.append(series)
            continue
        start = trajectory.steps[0].anchor
        values = (
            0.0 if step.reached is not None and step.reached == start else means.get(step.reached, value)
            for step, value in zip(trajectory.steps, series[1:], strict=True)
        )
        pooled.append([0.0, *values])
    return pooled
