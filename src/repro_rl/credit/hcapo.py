"""HCAPO (arXiv 2603.08754): which actions look likely once the end is known. From the paper."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.parts import relative, steps_left
from repro_rl.credit.rules import register_credit
from repro_rl.credit.settings import CreditSettings


@register_credit(
    "hcapo",
    published={"gamma": 0.95, "normalize": "mean_std", "episode_baseline": "trajectories"},
    needs=["hindsight_log_prob"],
    paid_by=["episode"],
)
def hcapo_advantages(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """``EP(R) + omega * z(Q)`` of every step, z over all steps of the task.

    Each sampled action is scored once more under a prompt that also tells the end of the episode:
    ``p = exp(mean over its tokens of log pi(token | hindsight) / temperature)``. Then
    ``rho = clip(p / mean of p over the trajectory, clip_low, clip_high)`` and
    ``Q_t = rho_t * gamma ** (T - t) * R``. ``smoothing`` a: ``Q_t <- (1 - a) Q_t + a Q_(t+1)``, the last Q
    unchanged. ``do_no_harm``: a negative step part of a won trajectory becomes 0.

    Assumption: an action that the known end makes likely was a cause of it. Reads hindsight_log_prob, won and
    episode returns; training scores every trajectory once more, with ``method.hindsight`` as what is told.
    Where all lost and only the outcome pays, the step part is 0. Third parties report that rho grows with the
    answer's length and lengths run away: watch ``rollout/tokens``.
    Source: *from the paper*. Decided here, as not stated: sample standard deviation, pooled over all steps;
    smoothing before standardising. A step without tokens has rho = 1 and no part in the mean. The episode
    part compares trajectories, not step rows as the other rules do: our vectors of the formulas need it.
    Beside "advantages": "ratios" rho and "hindsight_returns" Q, N x T_n each.
    """
    own = settings.hcapo
    logs = [list(tokens) for row in inputs.need("hindsight_log_prob") for tokens in row]
    scored = np.asarray([bool(tokens) for tokens in logs], dtype=np.bool_)
    mean = np.asarray([sum(tokens) / max(len(tokens), 1) for tokens in logs], dtype=np.float64)
    p = np.where(scored, np.exp(mean / own.temperature), 0.0)
    trajectory, count = inputs.trajectory, len(inputs.groups)
    steps = np.maximum(np.bincount(trajectory, weights=scored, minlength=count), 1)
    average = (np.bincount(trajectory, weights=p, minlength=count) / steps)[trajectory]
    ratio = np.divide(p, average, out=np.ones_like(p), where=scored & (average > 0))
    ratio = np.clip(ratio, own.clip_low, own.clip_high)
    left = steps_left(inputs)
    q = ratio * settings.gamma ** left.astype(np.float64) * inputs.per_step(inputs.returns())
    if own.smoothing is not None:
        following = np.where(left > 0, np.roll(q, -1), q)
        q = (1 - own.smoothing) * q + own.smoothing * following
    step_part = relative(q, inputs.step_tasks, settings.normalize)
    if own.do_no_harm:
        won = inputs.per_step(np.asarray([float(bool(w)) for w in inputs.need("won")]))
        step_part = np.where((won > 0) & (step_part < 0), 0.0, step_part)
    episode = inputs.per_step(inputs.episode_part(settings.normalize, settings.episode_baseline))
    return {
        "advantages": inputs.rows(episode + settings.omega * step_part),
        "ratios": inputs.rows(ratio),
        "hindsight_returns": inputs.rows(q),
    }
