"""The policy losses of ``repro_rl.losses`` on merged rows, and self-distillation."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from repro_rl.losses import LOSSES, LossTokens, gated_distillation, signed_distillation
from repro_rl.losses.dppo import kept_by_kl, kept_by_tv
from repro_rl.losses.settings import PUBLISHED, DistillSection, LossSection
from repro_rl.losses.tokens import row_means
from repro_rl.train.batch import Targets


def policy_gain(
    chosen: torch.Tensor, targets: Targets, clip: float, policy: LossSection
) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative loss of each target, and how many of its copies are clipped; both [T].

    ``chosen``: log-probs of the targets. Every loss is linear in the advantage for advantages of one sign. So
    it is taken once for the sum of the positive ones and once for that of the negative ones. That is exactly
    what all copies give (decision D55). Of ppo_clip, ``clip`` is the bound that ``policy`` leaves open.
    """
    open_bound = clip if policy.name == "ppo_clip" else None
    how = {
        field: policy.value(field, open_bound if field in ("clip_low", "clip_high") else None)
        for field in PUBLISHED[policy.name]
    }
    loss = LOSSES[policy.name]

    def of(advantages: torch.Tensor) -> torch.Tensor:
        return loss(LossTokens(chosen, targets.logprob, advantages, targets.row), **how)

    gain = -(of(targets.positive) + of(targets.negative))
    return gain, _clipped(chosen.detach(), targets, policy.name, how)


@torch.no_grad()
def _clipped(
    chosen: torch.Tensor, targets: Targets, name: str, how: Mapping[str, float | None]
) -> torch.Tensor:
    """[T], copies that are bounded (ppo_clip, cispo, gspo) or left out (dppo); sapo bounds nothing.

    Which copies are depends on the sign of their advantage; those with an advantage of 0 never are.
    """
    up, down = targets.n_positive, targets.n_negative
    if name == "sapo":
        return torch.zeros_like(up)
    clip_low, clip_high = how["clip_low"] or 0.0, how["clip_high"] or 0.0
    if name.startswith("dppo"):
        kept = kept_by_tv if name == "dppo_tv" else kept_by_kl

        def left_out(sign: float) -> torch.Tensor:
            advantages = torch.full_like(chosen, sign)
            tokens = LossTokens(chosen, targets.logprob, advantages, targets.row)
            return ~kept(tokens, clip_low, clip_high)

        return left_out(1.0) * up + left_out(-1.0) * down
    difference = chosen - targets.logprob
    ratio = (row_means(difference, targets.row) if name == "gspo" else difference).exp()
    above, below = ratio > 1 + clip_high, ratio < 1 - clip_low
    if name == "cispo":
        return (above | below) * (up + down)
    if (most := how.get("dual_clip")) is not None:
        below = below | (ratio > most)
    return above * up + below * down


def distillation(
    chosen: torch.Tensor, targets: Targets, distill: DistillSection
) -> tuple[torch.Tensor, float]:
    """The loss of self-distillation, summed over all copies of the tokens with a teacher, and their number.

    The loss is a scalar tensor that carries the gradient; ``chosen`` [T]: log-probs of the targets.

    It does not depend on the advantage, so equal samples with the same teacher count as often as they were
    sampled.
    """
    assert targets.teacher is not None
    known = ~torch.isnan(targets.teacher)
    teacher, own = targets.teacher[known], chosen[known]
    if distill.form == "gated":
        losses, _ = gated_distillation(own, teacher, gate_beta=distill.slope)
    else:
        losses = signed_distillation(
            own, targets.logprob[known], teacher, weight=distill.form, clip=distill.clip
        )
    weight = targets.weight[known]
    return (losses * weight).sum(), float(weight.sum())
