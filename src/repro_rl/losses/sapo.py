"""SAPO (arXiv 2511.20347): a smooth gate in place of the clip."""

from __future__ import annotations

import torch

from repro_rl.losses.tokens import Loss, LossTokens


def sapo_loss(tokens: LossTokens, *, tau_pos: float, tau_neg: float) -> torch.Tensor:
    """``-A * (4 / tau) * sigmoid(tau * (r - 1))`` of each token, [T]; tau_pos for A > 0, else tau_neg.

    At r = 1 the gradient is -A, as PPO's; away from it it fades smoothly. Published aggregation:
    seq-mean-token-mean. Linear in A of one sign. Source: verl's code, agreed with on 20 cases.
    """
    tau = torch.where(
        tokens.advantages > 0, tokens.log_prob.new_tensor(tau_pos), tokens.log_prob.new_tensor(tau_neg)
    )
    return -tokens.advantages * (4 / tau) * torch.sigmoid(tau * (tokens.ratio - 1))


def sapo_clipped(tokens: LossTokens, *, tau_pos: float, tau_neg: float) -> torch.Tensor:
    """[T] bool: none, as the gate has no bound."""
    return torch.zeros_like(tokens.advantages, dtype=torch.bool)


SAPO = Loss(sapo_loss, sapo_clipped)
