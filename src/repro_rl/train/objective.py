"""The policy losses of ``repro_rl.losses`` on merged rows, and self-distillation."""

from __future__ import annotations

import torch

from repro_rl.losses import LossTokens, gated_distillation, signed_distillation
from repro_rl.losses.functions import functions_of
from repro_rl.losses.settings import DistillSection, LossSection
from repro_rl.train.batch import Targets


def policy_gain(
    chosen: torch.Tensor, targets: Targets, clip: float, loss: LossSection
) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative loss of each target, and how many of its copies are clipped; both [T].

    ``chosen``: log-probs of the targets. Every loss is linear in the advantage for advantages of one sign. So
    it is taken once for the sum of the positive ones and once for that of the negative ones. That is exactly
    what all copies give (decision D55). Of ppo_clip, ``clip`` is the bound that ``loss`` leaves open.
    """
    function, how = functions_of(loss.name), loss.values(clip)

    def tokens(advantages: torch.Tensor) -> LossTokens:
        return LossTokens(chosen, targets.logprob, advantages, targets.row)

    gain = -(function.loss(tokens(targets.positive), **how) + function.loss(tokens(targets.negative), **how))
    with torch.no_grad():
        up, down = torch.ones_like(chosen), -torch.ones_like(chosen)
        clipped = (
            function.clipped(tokens(up), **how) * targets.n_positive
            + function.clipped(tokens(down), **how) * targets.n_negative
        )
    return gain, clipped


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
