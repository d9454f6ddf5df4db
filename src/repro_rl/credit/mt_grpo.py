"""MT-GRPO (arXiv 2505.11821) with one tool call: the turn's reward is compared beside the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.checks import has_rows
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.mt_grpo_multi import mt_grpo_multi_advantages
from repro_rl.credit.parts import standard_in_tasks
from repro_rl.credit.rules import SHARED, register_credit
from repro_rl.credit.settings import CreditSettings


@register_credit("mt_grpo", ignores=SHARED)
def mt_grpo_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``z(O) + coef * z(T)`` before the tool's result, ``z(O)`` after it: outcomes O, turn rewards T [N].

    z subtracts the task's mean and divides by the sample standard deviation + ``epsilon``. Steps before
    ``first_step_after_tool`` are those before the result. A trajectory that used no tool gets z(O + T)
    everywhere. With turn rewards N x T_n, or none, the rule is ``mt_grpo_multi``, which also says why turns
    are never summed. A run always has that form.

    Assumption: one tool call a trajectory. Reads turn_rewards, first_step_after_tool, and outcome_rewards,
    else the episode returns. gamma, omega and normalize are not used.
    Source: the public code, agreed with on 20 cases. Decided here: the outcome keeps its part at every step.
    """
    turns = inputs.turn_rewards
    if turns is None or has_rows(turns):
        return mt_grpo_multi_advantages(inputs, settings)
    own, given = settings.mt_grpo, inputs.outcome_rewards
    outcome = inputs.returns() if given is None else np.asarray(given, dtype=np.float64)
    turn = np.asarray(turns, dtype=np.float64)
    after = inputs.need("first_step_after_tool")
    first = np.asarray([-1 if value is None else int(value) for value in after], dtype=np.intp)
    index = np.asarray([t for size in inputs.sizes.tolist() for t in range(size)], dtype=np.intp)
    overall, alone, both = (
        inputs.per_step(standard_in_tasks(values, inputs, own.epsilon))
        for values in (outcome, turn, turn + outcome)
    )
    with_tool = overall + np.where(index < inputs.per_step(first), own.coef * alone, 0.0)
    return {"advantages": inputs.rows(np.where(inputs.per_step(first) < 0, both, with_tool))}
