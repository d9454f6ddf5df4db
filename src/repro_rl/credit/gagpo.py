"""GAGPO (arXiv 2605.13217): GAE over a table of state values, without a critic. From the paper."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.parts import following, judged_states, means, relative
from repro_rl.credit.rules import register_credit
from repro_rl.credit.settings import CreditSettings


@register_credit(
    "gagpo",
    published={"gamma": 0.95, "normalize": "mean_std"},
    needs=["judged"],
    paid_by=["steps"],
    ignores=["omega", "episode_baseline"],
)
def gagpo_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """The generalised advantage of every step, relative to all steps of its task.

    V(task, s) is the mean over all visits of the return-to-go, discounted with gamma. Then
    ``delta_t = r_t + gamma V(s_(t+1)) - V(s_t)``, V after the end 0, and
    ``raw_t = delta_t + gamma * lam * raw_(t+1)``. There is no episode part: omega is not used. lam = 1 is
    ``G_t - V(s_t)``, GiGPO's centred step part before the normaliser; lam = 0 the one-step difference.

    Assumption: what follows a state depends on the state alone. Reads rewards and anchors. Where all lost
    and only the outcome pays, every step gets 0. With ``value_source`` other than "outcome", V is
    ``success_value`` times the judged worth (our arm; no paper has it).
    Source: *from the paper*; no code was found. Decided here, as not stated: gamma = lam = 0.95, sample
    standard deviation + 1e-6, 0 for a task of one step. Its loss has one ratio an action: ``train.loss.name``
    "gspo" with window prompts, where a row is a step.
    Beside "advantages": "raw_advantages" and "state_values", N x T_n each.
    """
    states = inputs.states()
    value = means(inputs.to_go(settings.gamma), states)
    if settings.value_source != "outcome":
        worth, _ = judged_states(inputs)
        value = np.where(np.isnan(worth), value, settings.gagpo.success_value * worth)
    after = following(inputs, value, np.zeros(len(inputs.groups)))
    delta = inputs.flat("rewards") + settings.gamma * after - value
    raw = np.zeros_like(delta)
    ahead = 0.0
    ends = set((np.cumsum(inputs.sizes) - 1).tolist())
    for t in range(len(delta) - 1, -1, -1):
        ahead = delta[t] + (0.0 if t in ends else settings.gamma * settings.gagpo.lam * ahead)
        raw[t] = ahead
    return {
        "advantages": inputs.rows(relative(raw, inputs.step_tasks, settings.normalize)),
        "raw_advantages": inputs.rows(raw),
        "state_values": inputs.rows(value),
    }
