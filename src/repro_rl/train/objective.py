"""The policy losses of ``repro_rl.losses`` on merged rows, and self-distillation."""

from __future__ import annotations

import torch

from repro_rl.losses import LOSSES, LossTokens, gated_distillation, signed_distillation
from repro_rl.losses.dppo import kept_by_kl, kept_by_tv
from repro_rl.losses.settings import PUBLISHED, DistillSection, LossSection
from repro_rl.losses.tokens import row_means
from repro_rl.train.batch import Targets


def policy_gain(
    chosen: torch.Tensor, targets: Targets, clip: float, policy: LossSection
) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative loss of each target, and which targets are clipped; both [T].

    ``chosen``: log-probs of the targets. Every loss is linear in the advantage for advantages of one sign, so
    it is taken once for the sum of the positive ones and once for that of the negative ones: exactly what
    all copies give (decision D55). Of ppo_clip, ``clip`` is the bound that ``policy`` leaves open.
    """
    if policy.name == "ppo_clip":
        return _ppo_gain(chosen, targets, clip, policy)
    how = {field: policy.value(field) for field in PUBLISHED[policy.name]}
    loss = LOSSES[policy.name]

    def of(advantages: torch.Tensor) -> torch.Tensor:
        return loss(LossTokens(chosen, targets.logprob, advantages, targets.row), **how)

    gain = -(of(targets.positive) + of(targets.negative))
    return gain, _clipped(chosen.detach(), targets, policy)


def _ppo_gain(
    chosen: torch.Tensor, targets: Targets, clip: float, policy: LossSection
) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = policy.value("clip_low", clip), policy.value("clip_high", clip)
    ratio = (chosen - targets.logprob).exp()
    lowered = torch.clamp(ratio, min=1 - low, max=policy.dual_clip)
    gain = torch.clamp(ratio, max=1 + high) * targets.positive + lowered * targets.negative
    with torch.no_grad():
        below = ratio < 1 - low
        if policy.dual_clip is not None:
            below = below | (ratio > policy.dual_clip)
        clipped = ((ratio > 1 + high) & (targets.positive > 0)) | (below & (targets.negative < 0))
    return gain, clipped


@torch.no_grad()
def _clipped(chosen: torch.Tensor, targets: Targets, policy: LossSection) -> torch.Tensor:
    """[T] bool: bounded (cispo, gspo) or left out (dppo); sapo bounds nothing."""
    up, down = targets.positive > 0, targets.negative < 0
    if policy.name == "sapo":
        return torch.zeros_like(up)
    if policy.name.startswith("dppo"):
        kept = kept_by_tv if policy.name == "dppo_tv" else kept_by_kl
        bounds = policy.value("clip_low"), policy.value("clip_high")

        def left_out(sign: float) -> torch.Tensor:
            advantages = torch.full_like(chosen, sign)
            return ~kept(LossTokens(chosen, targets.logprob, advantages, targets.row), *bounds)

        return (left_out(1.0) & up) | (left_out(-1.0) & down)
    difference = chosen - targets.logprob
    ratio = (row_means(difference, targets.row) if policy.name == "gspo" else difference).exp()
    high, low = 1 + policy.value("clip_high"), 1 - policy.value("clip_low")
    if policy.name == "cispo":
        bounded: torch.Tensor = ((ratio > high) | (ratio < low)) & (up | down)
    else:
        bounded = ((ratio > high) & up) | ((ratio < low) & down)
    return bounded


def distillation(chosen: torch.Tensor, targets: Targets, how: DistillSection) -> tuple[torch.Tensor, float]:
    """The loss of self-distillation, summed over all copies of the tokens with a teacher, and their number.

    It does not depend on the advantage, so equal samples with the same teacher count as often as they were
    sampled.
    """
    assert targets.teacher is not None
    known = ~torch.isnan(targets.teacher)
    teacher, own = targets.teacher[known], chosen[known]
    if how.form == "gated":
        losses, _ = gated_distillation(own, teacher, gate_beta=how.slope)
    else:
        losses = signed_distillation(own, targets.logprob[known], teacher, weight=how.form, clip=how.clip)
    weight = targets.weight[known]
    return (losses * weight).sum(), float(weight.sum())
