"""GraphGPO (arXiv 2605.26684): a step is worth how few actions any rollout needed from where it led."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.parts import distances, following, judged_states, relative
from repro_rl.credit.rules import register_credit
from repro_rl.credit.settings import CreditSettings


@register_credit(
    "graphgpo", published={"gamma": 0.1, "normalize": "mean_std"}, needs=["judged"], paid_by=["episode"]
)
def graphgpo_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``omega * SN(g) + episode_weight * EP(R)`` of every step, with g = 10 * gamma ** d(s').

    The rollouts of a task, laid over one another, are a graph: nodes are states. Every step is an edge of
    cost 1, and the last step of a win leads to one goal. The distance d(x) is the smallest number of edges
    from x to the goal. Where no path leads there, it is 1 + the task's largest finite d. So g is the same
    everywhere when all lost, and the step part is 0. SN compares g itself, not a return-to-go, over the steps
    in one (task, state). ``relative_distance``: g = 10 * gamma ** (d(s') - d(s) + 1).

    Assumption: the environment is deterministic. One lucky stochastic edge counts as sure.
    Reads anchors, the state after each step, won, and the episode returns. With ``value_source`` other than
    "outcome", g is 10 times the judged worth of s' (our arm; no paper has it).
    Source: the public recipe, agreed with on 20 cases. It differs from the paper by one factor gamma, which
    "mean_std" cancels. Decided here: success is ``won``, where the recipe takes an episode reward above 0;
    states are equal by key alone. Published gamma: 0.1 ALFWorld, 0.2 WebShop, 0.8 Sokoban, always "mean_std".
    Beside "advantages": "step_returns" g and "next_distance" d(s'), N x T_n each.
    """
    own = settings.graphgpo
    before, after = distances(inputs)
    exponent = after - before + 1 if own.relative_distance else after
    values = own.success_value * settings.gamma ** exponent.astype(np.float64)
    if settings.value_source != "outcome":
        state, end = judged_states(inputs)
        worth = following(inputs, state, end)
        values = np.where(np.isnan(worth), values, own.success_value * worth)
    step_part = relative(values, inputs.states(), settings.normalize)
    episode = inputs.per_step(inputs.episode_part(settings.normalize, settings.episode_baseline))
    return {
        "advantages": inputs.rows(settings.omega * step_part + own.episode_weight * episode),
        "step_returns": inputs.rows(values),
        "next_distance": inputs.rows(after.astype(np.float64)),
    }
