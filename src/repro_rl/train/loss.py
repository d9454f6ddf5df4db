"""The clipped policy objective on merged rows, its KL term, and what is logged about both."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from repro_rl.errors import ConfigError
from repro_rl.train.batch import Batch
from repro_rl.train.forward import trained_logits


@dataclass(slots=True)
class LossTerms:
    """Sums over trained tokens of one micro-batch. ``total`` carries the gradient; the rest are numbers."""

    total: torch.Tensor
    policy: float
    kl: float
    entropy: float
    clipped: float
    mismatch: float  # sum of |log-prob of the trainer - log-prob of the sampler|
    tokens: float


def reference_values(
    reference: Any, batch: Batch, form: str, temperature: float, use_packed: bool = True
) -> torch.Tensor:
    """What the KL of this form needs of the reference: log-distributions [U, V] or log-probs [T]."""
    logits, place = trained_logits(reference, batch, temperature, use_packed)
    logp = torch.log_softmax(logits, dim=-1)
    return logp if form == "exact" else pick(logp, batch, place)


def pick(logp: torch.Tensor, batch: Batch, place: torch.Tensor | None) -> torch.Tensor:
    """Log-probs [T] of the targets under log-distributions [U, V]."""
    assert batch.targets is not None
    token = batch.targets.token
    if place is None:
        return logp.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    return logp.flatten().index_select(0, place * logp.shape[-1] + token)


def kl_terms(
    form: str, logp: torch.Tensor, chosen: torch.Tensor, reference: torch.Tensor, clamp: float
) -> torch.Tensor:
    """KL(policy || reference) for each token [T].

    "exact" sums over the vocabulary (logp and reference [T, V]); "k1", "k2", "k3" are Schulman's estimators
    on the sampled token (reference [T]) with the log-ratio clamped, since k3 explodes from a sharp start
    (MICRO).
    """
    if form == "exact":
        return (logp.exp() * (logp - reference)).sum(-1)
    ratio = (reference - chosen).clamp(-clamp, clamp)
    if form == "k1":
        return -ratio
    if form == "k2":
        return 0.5 * ratio.square()
    if form == "k3":
        return ratio.exp() - 1 - ratio
    raise ConfigError(f"Unknown KL form {form!r}; known: exact, k1, k2, k3, none.")


def policy_loss(
    model: Any,
    batch: Batch,
    *,
    clip: float,
    kl_form: str,
    kl_coef: float,
    kl_clamp: float,
    entropy_coef: float,
    temperature: float,
    use_packed: bool = True,
) -> LossTerms:
    """PPO-clip + KL - entropy bonus.

    Each token counts ``batch.scale`` (1 / tokens of its kind in the mini-batch). ``use_packed`` must be what
    ``reference_values`` had.
    """
    logits, place = trained_logits(model, batch, temperature, use_packed)
    cells = batch.targets
    assert cells is not None

    def each(values: torch.Tensor) -> torch.Tensor:
        """[T] from [U]."""
        return values if place is None else values.index_select(0, place)

    logp = torch.log_softmax(logits, dim=-1)
    weight, old = cells.weight, cells.logprob
    chosen = pick(logp, batch, place)
    ratio = (chosen - old).exp()
    gain = (
        torch.clamp(ratio, max=1 + clip) * cells.positive + torch.clamp(ratio, min=1 - clip) * cells.negative
    )
    with nullcontext() if entropy_coef else torch.no_grad():
        entropy = each(-(logp.exp() * logp).sum(-1))
    per_token = -gain
    if entropy_coef:
        per_token = per_token - entropy_coef * weight * entropy
    kl_sum = 0.0
    if kl_form != "none" and batch.reference is not None:
        kl = kl_terms(kl_form, logp, chosen, batch.reference, kl_clamp)
        if kl_form == "exact":
            kl = each(kl)
        per_token = per_token + kl_coef * weight * kl
        kl_sum = float((weight * kl).sum().detach())
    total = (per_token * cells.scale).sum()
    with torch.no_grad():
        clipped = ((ratio > 1 + clip) & (cells.positive > 0)) | ((ratio < 1 - clip) & (cells.negative < 0))
        return LossTerms(
            total=total,
            policy=float(-(gain * cells.scale).sum()),
            kl=kl_sum,
            entropy=float((weight * entropy).sum()),
            clipped=float((clipped * weight).sum()),
            mismatch=float(((chosen - old).abs() * weight).sum()),
            tokens=float(weight.sum()),
        )


def imitation_loss(model: Any, batch: Batch, use_packed: bool = True) -> torch.Tensor:
    """Cross-entropy of the trained tokens, each counted ``batch.scale``."""
    logits, place = trained_logits(model, batch, 1.0, use_packed)
    assert batch.targets is not None
    chosen = pick(torch.log_softmax(logits, dim=-1), batch, place)
    return -(chosen * batch.targets.weight * batch.targets.scale).sum()
