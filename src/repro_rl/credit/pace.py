"""PACE over anchors (part of BiPACE, arXiv 2606.25556): the value of an action in a state. From the paper."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.baseline import number_keys
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.parts import means
from repro_rl.credit.rules import register_credit
from repro_rl.credit.settings import CreditSettings


@register_credit("pace", published={"gamma": 0.95})
def pace_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``EP(R) + omega * A_step`` of every step, with A_step an estimate of Q - V.

    A_step is the mean return-to-go over the steps in the same (task, state) with the same action, minus the
    mean over all steps there ("q-v"). So it does not depend on the luck of the step itself. Where only one
    action was taken, it is the return-to-go minus the mean of the *other* steps there ("leave-one-out"). A
    step alone in its state gets 0 ("single"). There is no division in the step part; ``normalize`` is that of
    the episode part.

    Assumption: equal anchors are equal states, equal action texts equal actions. In free text actions repeat
    rarely, and q-v is then GiGPO's ``G - mean``. Reads rewards, anchors, actions, episode returns.
    Source: *from the paper* (its code is announced, not released). Our reading, not stated: when to fall
    back, no division, actions by their parsed text. Left out: the paper's clusters of hidden states, which
    our exact anchors replace (eps = 0).
    Beside "advantages": "step_part" and "branch", N x T_n each.
    """
    states = inputs.states()
    actions = [action for row in inputs.need("actions") for action in row]
    pairs = number_keys("actions", list(zip(states.tolist(), actions, strict=True)))
    returns = inputs.to_go(settings.gamma)
    count = np.bincount(states)[states] if states.size else states
    in_state, of_action = means(returns, states), means(returns, pairs)
    several = count > (np.bincount(pairs)[pairs] if pairs.size else pairs)  # other actions were taken there
    others = (in_state * count - returns) / np.maximum(count - 1, 1)
    step_part = np.where(several, of_action - in_state, np.where(count > 1, returns - others, 0.0))
    branch = np.where(several, "q-v", np.where(count > 1, "leave-one-out", "single"))
    episode = inputs.per_step(inputs.episode_part(settings.normalize, settings.episode_baseline))
    return {
        "advantages": inputs.rows(episode + settings.omega * step_part),
        "step_part": inputs.rows(step_part),
        "branch": inputs.rows(branch),
    }
