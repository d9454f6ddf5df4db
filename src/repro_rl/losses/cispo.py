"""CISPO (arXiv 2506.13585): the clipped ratio weighs the log-prob, so no token loses its gradient."""

from __future__ import annotations

import torch

from repro_rl.losses.tokens import Loss, LossTokens


def cispo_loss(tokens: LossTokens, *, clip_low: float, clip_high: float) -> torch.Tensor:
    """``-sg(clip(r, 1 - clip_low, 1 + clip_high)) * A * log pi`` of each token, [T]; sg stops the gradient.

    The paper bounds the ratio from above only; a clip_low of 1 or more is no bound. Published aggregation:
    token-mean. Linear in A, so equal samples may be merged by sign. Source: verl's code, agreed with on 20
    cases.
    """
    weight = tokens.ratio.detach().clamp(1 - clip_low, 1 + clip_high)
    return -weight * tokens.advantages * tokens.log_prob


def cispo_clipped(tokens: LossTokens, *, clip_low: float, clip_high: float) -> torch.Tensor:
    """[T] bool: the ratio is outside its range, whatever the sign of the advantage; never where that is 0."""
    ratio = tokens.ratio
    return ((ratio > 1 + clip_high) | (ratio < 1 - clip_low)) & (tokens.advantages != 0)


CISPO = Loss(cispo_loss, cispo_clipped)
