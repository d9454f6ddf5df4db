"""The clipped policy objective on merged rows, its KL term, and what is logged about both."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from repro_rl.errors import ConfigError
from repro_rl.train.batch import Batch


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


def token_logits(
    model: torch.nn.Module, batch: Batch, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, K, V] of the targets in the columns [K] that are trained on, and those columns."""
    columns = batch.columns
    logits = model(input_ids=batch.ids, use_cache=False, logits_to_keep=columns).logits.float()
    return (logits / temperature if temperature != 1 else logits), columns


def pick(logp: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Log-probs [B, L] of the targets under log-distributions [B, L, V]."""
    return logp.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def kl_terms(
    form: str, logp: torch.Tensor, chosen: torch.Tensor, reference: torch.Tensor, clamp: float
) -> torch.Tensor:
    """KL(policy || reference) for each token [B, L].

    "exact" sums over the vocabulary (reference [B, L, V]); "k1", "k2", "k3" are Schulman's estimators on the
    sampled token (reference [B, L]) with the log-ratio clamped, since k3 explodes from a sharp start (MICRO).
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
    model: torch.nn.Module,
    batch: Batch,
    *,
    clip: float,
    kl_form: str,
    kl_coef: float,
    kl_clamp: float,
    entropy_coef: float,
    temperature: float,
) -> LossTerms:
    """PPO-clip + KL - entropy bonus.

    Each token counts ``batch.scale`` (1 / tokens of its kind in the mini-batch).
    """
    logits, columns = token_logits(model, batch, temperature)
    logp = torch.log_softmax(logits, dim=-1)
    target, weight, scale = batch.target[:, columns], batch.weight[:, columns], batch.scale[:, columns]
    old = batch.logprob[:, columns]
    chosen = pick(logp, target)
    ratio = torch.where(weight > 0, chosen - old, 0.0).exp()
    gain = (
        torch.clamp(ratio, max=1 + clip) * batch.positive[:, columns]
        + torch.clamp(ratio, min=1 - clip) * batch.negative[:, columns]
    )
    entropy = -(logp.exp() * logp).sum(-1)
    per_token = -gain - entropy_coef * weight * entropy
    kl_sum = 0.0
    if kl_form != "none" and batch.reference is not None:
        kl = kl_terms(kl_form, logp, chosen, batch.reference, kl_clamp)
        per_token = per_token + kl_coef * weight * kl
        kl_sum = float((weight * kl).sum().detach())
    total = (per_token * scale).sum()
    with torch.no_grad():
        clipped = ((ratio > 1 + clip) * (batch.positive[:, columns] > 0)) | (
            (ratio < 1 - clip) * (batch.negative[:, columns] < 0)
        )
        return LossTerms(
            total=total,
            policy=float(-(gain * scale).sum()),
            kl=kl_sum,
            entropy=float((weight * entropy).sum()),
            clipped=float((clipped * weight).sum()),
            mismatch=float(((chosen - old).abs() * weight).sum()),
            tokens=float(weight.sum()),
        )


def imitation_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the trained tokens, each counted ``batch.scale``."""
    logits, columns = token_logits(model, batch, 1.0)
    chosen = pick(torch.log_softmax(logits, dim=-1), batch.target[:, columns])
    return -(chosen * batch.weight[:, columns] * batch.scale[:, columns]).sum()
