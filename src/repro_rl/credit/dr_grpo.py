"""Dr. GRPO (arXiv 2503.20783): a return minus the mean of its task, without division by the spread."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.baseline import normalise
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.rules import SHARED, register_credit
from repro_rl.credit.settings import CreditSettings


@register_credit("dr_grpo", paid_by=["episode"], ignores=SHARED)
def dr_grpo_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``R - mean(R)`` over the trajectories of the task, for each trajectory [N].

    gamma, omega and normalize are not used. With ``normalize="mean"`` the rule ``grpo`` is the same. What
    makes the method is its loss, which divides by a constant in place of the answer's length:
    ``train.loss.aggregation=seq-mean-token-sum-norm`` with ``train.loss.scale`` the longest answer.

    Assumption: none beyond GRPO's. Reads episode returns.
    Source: verl's code, agreed with on 20 cases. Decided there and here: one alone keeps its return. A
    trajectory without a step has no part in the mean.
    """
    counts = (inputs.sizes > 0).astype(np.float64)
    values = normalise(inputs.returns(), inputs.tasks, counts, "mean", lone_keeps_value=True)
    return {"advantages": values.tolist()}
