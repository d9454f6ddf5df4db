"""MT-GRPO (arXiv 2505.11821): turn rewards compared beside outcomes. It adds; it never accumulates."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.baseline import Floats, number_keys
from repro_rl.credit.inputs import CreditInputs, Indices
from repro_rl.credit.rules import SHARED, register_credit
from repro_rl.credit.settings import CreditSettings


def _of_tasks(values: Floats, inputs: CreditInputs, epsilon: float) -> Floats:
    """[n] trajectories standardised in their tasks; one without a step is in no baseline, and 0 itself."""
    played = inputs.sizes > 0
    out = np.zeros_like(values)
    out[played] = _standard(values[played], inputs.tasks[played], epsilon)
    return out


def _standard(values: Floats, ids: Indices, epsilon: float) -> Floats:
    """[n], (value - mean) / (sample standard deviation + epsilon) of its id; 0 for a value alone there."""
    if not ids.size:
        return values
    count = np.bincount(ids)[ids]
    deviation = values - np.bincount(ids, weights=values)[ids] / count
    variance = np.bincount(ids, weights=deviation**2)[ids] / np.maximum(count - 1, 1)
    return np.where(count > 1, deviation / (np.sqrt(variance) + epsilon), 0.0)


@register_credit("mt_grpo", ignores=SHARED)
def mt_grpo_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``z(O) + coef * z(T)`` of every step: outcomes O and turn rewards T, each standardised in its task.

    z subtracts the task's mean and divides by the sample standard deviation + ``epsilon``.

    - One tool call (turn_rewards [N]): steps before ``first_step_after_tool`` get ``z(O) + coef * z(T)``,
      later ones z(O). A trajectory that used no tool gets z(O + T) everywhere.
    - Many turns (turn_rewards N x T_n, or none: the step rewards): z(T) is over the task's rollouts at the
      same step number. The last step of each is the answer and gets z(O) alone. Where a rollout is alone at
      its step number, z(T) is 0. This form is *our reading*.

    Warning: what is standardised by turn must not be summed over the remaining turns. A trajectory would
    subtract as many baselines as it has turns left, which its own actions decide. The policy would then learn
    to stop early, or to go on, whatever the task pays (verl issue 7244). This rule adds without summing, so
    it is free of that bias. A sum is safe only before the baseline is taken.

    Assumption: equal step numbers are comparable. Reads outcome_rewards, else the episode returns, and
    rewards. gamma, omega and normalize are not used.
    Source: the public code for one tool call, 20 cases; the paper alone for many turns. Decided here: the
    outcome keeps its part at every step; an environment's payment at the last step is the outcome's.
    """
    own = settings.mt_grpo
    given = inputs.outcome_rewards
    outcome = inputs.returns() if given is None else np.asarray(given, dtype=np.float64)
    overall = inputs.per_step(_of_tasks(outcome, inputs, own.epsilon))
    turns = inputs.turn_rewards
    if turns is None:
        turns = inputs.need("rewards")
    index = np.asarray([t for size in inputs.sizes.tolist() for t in range(size)], dtype=np.intp)
    if all(isinstance(row, list | tuple | np.ndarray) for row in turns):
        values = np.asarray([float(value) for row in turns for value in row], dtype=np.float64)
        inner = index < inputs.per_step(inputs.sizes) - 1  # the last step is the answer, not a turn
        ids = number_keys(
            "turns", list(zip(inputs.step_tasks[inner].tolist(), index[inner].tolist(), strict=True))
        )
        part = np.zeros_like(overall)
        part[inner] = own.coef * _standard(values[inner], ids, own.epsilon)
        return {"advantages": inputs.rows(overall + part)}
    turn = np.asarray(turns, dtype=np.float64)
    after = inputs.need("first_step_after_tool")
    first = np.asarray([-1 if value is None else int(value) for value in after], dtype=np.intp)
    both = inputs.per_step(_of_tasks(turn + outcome, inputs, own.epsilon))
    part = own.coef * inputs.per_step(_of_tasks(turn, inputs, own.epsilon))
    with_tool = overall + np.where(index < inputs.per_step(first), part, 0.0)
    return {"advantages": inputs.rows(np.where(inputs.per_step(first) < 0, both, with_tool))}


@register_credit("mt_grpo_multi", ignores=SHARED)
def _many_turns(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """As mt_grpo; the name under which its form for many turns, or for no turn rewards, is tabulated."""
    return mt_grpo_advantages(inputs, settings)
