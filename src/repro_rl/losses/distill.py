"""Self-distillation: SDAR (2605.15155), SEED (2607.14777), and the signed form of OPID (2606.26790)."""

from __future__ import annotations

import torch

from repro_rl.losses.settings import GATE_BETA
from repro_rl.losses.tokens import MAX_LOG_RATIO, check_shapes


def gated_distillation(
    log_prob: torch.Tensor, teacher_log_prob: torch.Tensor, *, gate_beta: float = GATE_BETA
) -> tuple[torch.Tensor, torch.Tensor]:
    """``g * D`` and the gate g of each token, [T] each.

    ``D = log pi_T - log pi`` and ``g = sigmoid(gate_beta * D)`` without gradient. The teacher is the same
    weights before the update, on the same tokens, with privileged text in its prompt. The gradient by log pi
    is -g: it only ever raises a sampled token, most where the teacher agrees more than the student. So on a
    lost episode it also raises bad actions that the teacher finds likely.
    Source: SDAR's code, agreed with on 20 cases. Published: gate_beta 5, weight 0.01 beside the policy loss,
    token-mean. Raises ConfigError for tensors of unequal shapes.
    """
    check_shapes(log_prob=log_prob, teacher_log_prob=teacher_log_prob)
    gap = teacher_log_prob - log_prob
    gate = torch.sigmoid(gate_beta * gap).detach()
    return gate * gap, gate


def signed_distillation(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    teacher_log_prob: torch.Tensor,
    *,
    weight: str = "delta",
    clip: float | None = None,
) -> torch.Tensor:
    """``-w * log pi`` ("delta") or ``-w * exp(log pi - log pi_old)`` ("importance") of each token, [T].

    ``w = log pi_T - log pi_old``. ``clip`` bounds w ("delta"), or its product with the ratio ("importance"):
    a token beyond it then has no gradient. It is signed: tokens that the teacher finds less likely are
    lowered. Source: OPID's code, agreed with on 20 cases. Raises ConfigError for tensors of unequal shapes.
    """
    check_shapes(log_prob=log_prob, old_log_prob=old_log_prob, teacher_log_prob=teacher_log_prob)
    w = (teacher_log_prob - old_log_prob).detach()
    if weight == "delta":
        return -(w if clip is None else w.clamp(-clip, clip)) * log_prob
    ratio = (log_prob - old_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    product = w * ratio
    return -(product if clip is None else product.clamp(-clip, clip))
