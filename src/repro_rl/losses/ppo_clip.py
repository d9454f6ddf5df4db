"""PPO's clipped loss (arXiv 1707.06347), with clip-higher (2503.14476) and dual clip (1912.09729)."""

from __future__ import annotations

import torch

from repro_rl.losses.tokens import LossTokens


def ppo_clip_loss(
    tokens: LossTokens, *, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = None
) -> torch.Tensor:
    """``max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))`` of each token, [T].

    clip-higher: clip_high above clip_low (0.28 and 0.2), so that rare tokens may grow. ``dual_clip`` c: for
    A < 0 the loss is at most ``-A c`` (c = 3), so one token with a large ratio cannot rule a batch. At a tie
    the gradient passes. Linear in A for A of one sign, so equal samples may be merged by sign.
    Source: verl's code, agreed with on 20 cases.
    """
    ratio, advantages = tokens.ratio, tokens.advantages
    if dual_clip is None:
        lowered = ratio.clamp(min=1 - clip_low)
    else:
        lowered = ratio.clamp(min=1 - clip_low, max=dual_clip)
    return -torch.where(advantages < 0, lowered, ratio.clamp(max=1 + clip_high)) * advantages
