"""MT-GRPO (arXiv 2505.11821) with many turns: turn rewards are compared by turn, and never summed."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.baseline import number_keys
from repro_rl.credit.checks import has_rows
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.parts import standard, standard_in_tasks
from repro_rl.credit.rules import SHARED, register_credit
from repro_rl.credit.settings import CreditSettings
from repro_rl.errors import ConfigError


@register_credit("mt_grpo_multi", ignores=SHARED)
def mt_grpo_multi_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``z(O) + coef * z(T)`` of every step: outcomes O in their task, turn rewards T at their step number.

    z subtracts the mean and divides by the sample standard deviation + ``epsilon``. Without turn rewards,
    N x T_n, the step rewards are T. Compared are the task's rollouts at the same step number. Where a rollout
    is alone there, z(T) is 0. The last step of each is the answer and gets z(O) alone.

    Warning: what is standardised by turn must not be summed over the remaining turns. A trajectory would
    subtract as many baselines as it has turns left, which its own actions decide. The policy would then learn
    to stop early, or to go on, whatever the task pays (verl issue 7244). This rule adds without summing, so
    it is free of that bias. A sum is safe only before the baseline is taken.

    Assumption: equal step numbers are comparable. Reads outcome_rewards, else the episode returns, and
    rewards. gamma, omega and normalize are not used.
    Source: *our reading* of the paper. Decided here: an environment's payment at the last step is the
    outcome's.
    """
    own, given, turns = settings.mt_grpo, inputs.outcome_rewards, inputs.turn_rewards
    if turns is None:
        turns = inputs.need("rewards")
    elif not has_rows(turns):
        raise ConfigError(
            "mt_grpo_multi: turn_rewards has one number a trajectory; give one a step, or take mt_grpo."
        )
    outcome = inputs.returns() if given is None else np.asarray(given, dtype=np.float64)
    result = inputs.per_step(standard_in_tasks(outcome, inputs, own.epsilon))
    values = np.asarray([float(value) for row in turns for value in row], dtype=np.float64)
    index = np.asarray([t for size in inputs.sizes.tolist() for t in range(size)], dtype=np.intp)
    inner = index < inputs.per_step(inputs.sizes) - 1
    pairs = list(zip(inputs.step_tasks[inner].tolist(), index[inner].tolist(), strict=True))
    result[inner] += own.coef * standard(values[inner], number_keys("turns", pairs), own.epsilon)
    return {"advantages": inputs.rows(result)}
