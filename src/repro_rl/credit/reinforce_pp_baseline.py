"""REINFORCE++ baseline (arXiv 2501.03262): centred returns, whitened over all tokens of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.baseline import normalise
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.rules import SHARED, register_credit
from repro_rl.credit.settings import CreditSettings
from repro_rl.credit.whitening import token_counts_of, whitened


@register_credit("reinforce_pp_baseline", paid_by=["episode"], ignores=SHARED)
def reinforce_pp_baseline_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """The return minus the mean of its task, whitened over all tokens of the batch: N x T_n.

    The mean is over the task's trajectories; one alone keeps its return. Each value stands for all tokens of
    its trajectory: ``(x - mean) / sqrt(var + 1e-8)``, var with n / (n - 1). gamma, omega and normalize are
    not used.

    Assumption: the tasks' centred returns share one scale. An advantage depends on the rest of the batch, and
    on the lengths of all answers; over several processes the statistics are global. Reads episode returns and
    token_counts.
    Source: verl's code, agreed with on 20 cases. Decided here: an answer without tokens counts as one.
    """
    counts = token_counts_of(inputs)
    played = (inputs.sizes > 0).astype(np.float64)
    values = normalise(inputs.returns(), inputs.tasks, played, "mean", lone_keeps_value=True)
    steps = inputs.per_step(values)
    return {"advantages": inputs.rows(whitened(steps, steps, counts))}
