"""MaxRL (arXiv 2602.02710): a task weighs the more, the rarer its success."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.baseline import finite_array
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.rules import SHARED, register_credit
from repro_rl.credit.settings import CreditSettings
from repro_rl.errors import ConfigError


@register_credit("maxrl", paid_by=[], ignores=SHARED)
def maxrl_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``(R - m) / m`` for each trajectory [N], m the mean outcome of its task's trajectories.

    The expected gradient is that of a truncated series of log p in place of p. So a task with success rate p
    weighs 1/p as much as under a centred rule. A win gets (1 - p) / p, a loss -1. A single win in a group of
    G gets G - 1, so watch clipping and learning rate. Not used are gamma, omega and normalize.

    Guarded, the default: a task with m = 0 and a trajectory alone in its task get 0. Unguarded, as the
    original code: ``(R - m) / (m + epsilon)``, where one alone has m = 0, so its advantage is R / epsilon.

    Assumption: outcomes are not negative (in theory 0 or 1). Reads the outcome of ``method.outcome`` as 0..1;
    without ``won`` and scores, the episode returns. Returns with penalties would explode or change sign, so a
    negative one raises ConfigError.
    Source: both public codes, agreed with on 20 cases. Decided here: the guarded form is the default.
    Beside "advantages": "advantages_guarded", and "advantages_original" with None for one alone, [N] each.
    """
    told = inputs.won is None and inputs.scores is None
    outcome = finite_array("episode_returns", inputs.need("episode_returns")) if told else inputs.outcomes()
    if (outcome < 0).any():
        raise ConfigError(
            f"maxrl: outcome {outcome.min()} is negative; give won, or scores from 0 to 1, without penalties."
        )
    played = inputs.sizes > 0
    tasks = inputs.tasks
    count = np.bincount(tasks, weights=played)[tasks] if tasks.size else outcome
    mean = (np.bincount(tasks, weights=outcome * played)[tasks] if tasks.size else outcome) / np.maximum(
        count, 1
    )
    alone, epsilon = count <= 1, settings.maxrl.epsilon
    inside = ~alone & (mean > 0)
    guarded = np.divide(outcome - mean, mean, out=np.zeros_like(outcome), where=inside)
    base = np.where(alone, 0.0, mean)
    original = (outcome - base) / (base + epsilon)
    return {
        "advantages": (guarded if settings.maxrl.guarded else original).tolist(),
        "advantages_guarded": guarded.tolist(),
        "advantages_original": [
            None if one else value for one, value in zip(alone, original.tolist(), strict=True)
        ],
    }
