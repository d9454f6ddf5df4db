"""G2PO (arXiv 2606.22995): a step counts by the value of the state it led to, and by the gain."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.parts import following, judged_states, means, relative, steps_left
from repro_rl.credit.rules import register_credit
from repro_rl.credit.settings import CreditSettings


@register_credit(
    "g2po", published={"gamma": 0.95, "normalize": "mean_std"}, needs=["judged"], paid_by=["episode"]
)
def g2po_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``EP(R) + omega * (a + b)`` of every step, from the values of the states before and after it.

    V(task, s) is the mean over all visits of ``gamma ** (T - t + 1) * R``, t = 1..T, with R the outcome (1 on
    success) times ``success_value``. After the last step V is R itself.

    - transition: u = V(s_(t+1)), less ``invalid_penalty`` where the action was refused; a = u relative to
      its (task, state), 0 where alone;
    - gain: V(s_(t+1)) - V(s_t); b = the gain relative to all steps of the task.

    Assumption: what follows a state depends on the state alone. Reads anchors, won, valid, episode returns.
    Where all lost only the penalty is left. With ``value_source`` other than "outcome", V is
    ``success_value`` times the judged worth of the state. After the last step of a loss, V is the same times
    the worth of where it ended (our arm; no paper has it). A state that nothing judged keeps the V of the
    outcomes.
    Source: the public code, agreed with on 20 cases; the paper's body was not read. Decided here: gamma is a
    setting (fixed at 0.95 there); success is ``won`` (there: a reward of exactly 10). A task of one step gets
    0 (there: NaN). Partial outcomes scale R. Published: "mean_std" in ALFWorld, "mean" in WebShop.
    Beside "advantages": "step_part" a + b and "node_values" V(s_t), N x T_n each.
    """
    top = settings.g2po.success_value
    outcome = top * inputs.outcomes()
    left = steps_left(inputs) + 1
    states = inputs.states()
    value = means(settings.gamma ** left.astype(np.float64) * inputs.per_step(outcome), states)
    end = outcome
    if settings.value_source != "outcome":
        worth, after = judged_states(inputs)
        value = np.where(np.isnan(worth), value, top * worth)
        end = np.where(np.isnan(after), end, top * after)
    reached = following(inputs, value, end)
    refused = ~np.asarray([bool(v) for row in inputs.need("valid") for v in row], dtype=np.bool_)
    transition = relative(reached - settings.invalid_penalty * refused, states, settings.normalize)
    gain = relative(reached - value, inputs.step_tasks, settings.normalize)
    step_part = transition + gain
    episode = inputs.per_step(inputs.episode_part(settings.normalize, settings.episode_baseline))
    return {
        "advantages": inputs.rows(episode + settings.omega * step_part),
        "step_part": inputs.rows(step_part),
        "node_values": inputs.rows(value),
    }
