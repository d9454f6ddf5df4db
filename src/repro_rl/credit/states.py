"""What counts as one state (``method.anchor_key``): the environment's hidden state, or what the agent saw."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.settings import AnchorKey
from repro_rl.types import Trajectory


def states_of(trajectory: Trajectory, anchor_key: AnchorKey) -> tuple[list[Hashable], Hashable]:
    """The keys of the states before each action, [T], and of the one after the last; None: unknown.

    "state": the environment's own key. "observation": the text that the agent saw, by which the public GiGPO
    groups. Two hidden states that look alike are then one.
    """
    steps = trajectory.steps
    if anchor_key == "observation":
        return [step.observation for step in steps], trajectory.final_observation
    return [step.anchor for step in steps], steps[-1].reached if steps else None


def reached_by(trajectory: Trajectory, anchor_key: AnchorKey) -> list[Hashable]:
    """The key of the state after each action, [T]; None: unknown."""
    if anchor_key == "state":
        return [step.reached for step in trajectory.steps]
    before, final = states_of(trajectory, anchor_key)
    return [*before[1:], final][: len(before)]


def graph_inputs(
    trajectories: Sequence[Trajectory], groups: Sequence[Hashable], key: AnchorKey
) -> CreditInputs:
    """What the graph of states needs: anchors, states after the steps, and who won."""
    states = [states_of(trajectory, key) for trajectory in trajectories]
    reached = [reached_by(trajectory, key) for trajectory in trajectories]
    known = all(value is not None for row in reached for value in row)
    return CreditInputs(
        groups=groups,
        anchors=[before for before, _ in states],
        final_anchors=[final for _, final in states],
        reached=reached if known else None,
        won=[trajectory.won for trajectory in trajectories],
    )
