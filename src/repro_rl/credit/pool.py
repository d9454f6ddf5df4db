"""One judgement a state: what a group's reflections say about the same state, averaged.

The judge gives every step of every episode a number of its own, so the same state gets many. Shaping by
potential differences leaves the best policy as it is only when the potential is a function of the state (Ng,
Harada and Russell 1999); the mean over all visits in the group is one, and it has less noise and less of the
episode's outcome in it. Our decision; not in the paper.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

from repro_rl.credit.sources import Anchor, progress_series
from repro_rl.types import Group

Pool = Literal["none", "state"]


def pooled_series(group: Group, anchor: Anchor) -> list[list[float] | None]:
    """Retrospective P_0..P_T (fractions, [T + 1] each) of the group's trajectories, pooled by state.

    Each P_t is the mean of all judgements, after ``anchor``, of the state that step t reached, in all
    episodes of the group and as often as they were there. The start state is 0 by definition (METHOD: P_0),
    also when it is reached again. A step whose state is unknown (``reached`` is None) keeps its own value.
    None for a trajectory without a valid reflection; those with ``error`` set are judged by the others'
    values too, but lend none.
    """
    own = [progress_series(trajectory, "retrospective", anchor=anchor) for trajectory in group.trajectories]
    seen: dict[Hashable, list[float]] = {}
    for trajectory, series in zip(group.trajectories, own, strict=True):
        if series is None or trajectory.error is not None:
            continue
        for step, value in zip(trajectory.steps, series[1:], strict=True):
            if step.reached is not None:
                seen.setdefault(step.reached, []).append(value)
    means = {state: sum(values) / len(values) for state, values in seen.items()}
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
