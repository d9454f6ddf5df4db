"""REINFORCE++ (arXiv 2501.03262): returns-to-go over tokens, whitened over all tokens of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.baseline import Floats
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.rules import SHARED, register_credit
from repro_rl.credit.settings import CreditSettings
from repro_rl.credit.whitening import token_counts_of, whitened


@register_credit("reinforce_pp", paid_by=["steps"], ignores=SHARED)
def reinforce_pp_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """The return-to-go over *tokens*, whitened over all tokens of the batch: N x T_n.

    A step's reward stands on the last token of its answer, and gamma discounts token by token. Whitening:
    ``(x - mean) / sqrt(var + 1e-8)``, var with n / (n - 1). The value given is that of the step's last token;
    training gives it to all tokens of the step, which is exact with gamma = 1. There are no groups.

    Assumption: tasks are alike enough for one baseline. An advantage depends on the rest of the batch, and on
    the lengths of all answers; over several processes the statistics are global. Reads rewards and
    token_counts; ``method.gamma``, omega and normalize are not used. The KL
    penalty, a part of the reward there, stays in our loss (``train.kl``).
    Source: verl's code, agreed with on 20 cases. Decided here: an answer without tokens counts as one.
    """
    counts = token_counts_of(inputs)
    rewards = inputs.flat("rewards")
    starts = set((np.cumsum(inputs.sizes) - inputs.sizes).tolist())
    last = np.zeros_like(rewards)  # the return-to-go at each step's last token
    tokens: list[Floats] = []
    gamma = settings.reinforce_pp.gamma
    ahead = 0.0  # of the first token of the next step
    for t in range(len(rewards) - 1, -1, -1):
        last[t] = rewards[t] + gamma * ahead
        tokens.append(last[t] * gamma ** np.arange(counts[t], dtype=np.float64))
        ahead = 0.0 if t in starts else float(tokens[-1][-1])
    every = np.concatenate(tokens) if tokens else rewards
    return {"advantages": inputs.rows(whitened(last, every, np.ones(len(every), dtype=np.intp)))}
