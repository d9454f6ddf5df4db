"""GSPO (arXiv 2507.18071): one ratio a sequence in PPO's clipped loss."""

from __future__ import annotations

import torch

from repro_rl.losses.ppo_clip import ppo_clip_loss, ppo_clipped
from repro_rl.losses.tokens import Loss, LossTokens, row_means

MAX_LOG = 10.0  # of the sequence's log-ratio (verl)


def gspo_loss(tokens: LossTokens, *, clip_low: float, clip_high: float) -> torch.Tensor:
    """PPO's clip with ``s = exp(mean over the row of (log pi - log pi_old))`` for every ratio, [T].

    A token's ratio is ``s * exp(log pi - sg(log pi))``: its value is s, and its gradient reaches the token.
    The bounds are far narrower than PPO's, as s is a mean. With window prompts a row is one step. Published
    aggregation: seq-mean-token-mean. Linear in A of one sign for a whole row. Source: verl's code, agreed
    with on 20 cases.
    """
    log_ratio = (tokens.log_prob - tokens.log_prob.detach() + _means(tokens)).clamp(max=MAX_LOG)
    own = _with_log_ratio(tokens, log_ratio)
    return ppo_clip_loss(own, clip_low=clip_low, clip_high=clip_high, dual_clip=None)


def gspo_clipped(tokens: LossTokens, *, clip_low: float, clip_high: float) -> torch.Tensor:
    """[T] bool: the row's ratio is beyond the bound on the side of the token's advantage."""
    own = _with_log_ratio(tokens, _means(tokens))
    return ppo_clipped(own, clip_low=clip_low, clip_high=clip_high, dual_clip=None)


def _means(tokens: LossTokens) -> torch.Tensor:
    """[T], the mean log-ratio of each token's row, without a gradient."""
    return row_means((tokens.log_prob - tokens.old_log_prob).detach(), tokens.row)


def _with_log_ratio(tokens: LossTokens, log_ratio: torch.Tensor) -> LossTokens:
    return LossTokens(log_ratio, torch.zeros_like(log_ratio), tokens.advantages, tokens.row)


GSPO = Loss(gspo_loss, gspo_clipped)
