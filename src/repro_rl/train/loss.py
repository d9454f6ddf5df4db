"""The clipped policy objective on merged rows, its KL term, and what is logged about both."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from repro_rl.config import KlSection
from repro_rl.errors import ConfigError
from repro_rl.losses.functions import check_loss
from repro_rl.losses.kl import FORMS, kl_estimate
from repro_rl.losses.settings import DistillSection, LossSection
from repro_rl.settings import require
from repro_rl.train.batch import Batch
from repro_rl.train.logits import choice_logprobs, target_logits, target_logprobs
from repro_rl.train.objective import distillation, policy_gain

KL_FORMS = ("exact", *FORMS)


@dataclass(slots=True, frozen=True)
class LossSettings:
    """The objective of one token; the fields are those of the section ``train``."""

    clip: float  # e of PPO: the ratio counts within 1 - e .. 1 + e, unless ``loss`` has bounds of its own
    kl: KlSection  # form, weight and clamp of the KL to the reference
    entropy_coef: float  # weight of the entropy bonus
    temperature: float  # that the samples were drawn at
    loss: LossSection = field(default_factory=LossSection)  # which policy loss, and its bounds
    distill: DistillSection = field(default_factory=DistillSection)  # self-distillation

    def __post_init__(self) -> None:
        """Raises ConfigError for a value outside its range, and as ``check_loss`` does."""
        require(0 < self.clip < math.inf, "clip", self.clip, "above 0, and finite")
        require(math.isfinite(self.entropy_coef), "entropy_coef", self.entropy_coef, "finite")
        require(0 < self.temperature < math.inf, "temperature", self.temperature, "above 0, and finite")
        check_loss(self.loss)


@dataclass(slots=True)
class LossTerms:
    """Sums over trained tokens of one micro-batch, copies included."""

    total: torch.Tensor  # the loss, the only one that carries a gradient
    policy_loss: float  # the part of ``total`` that is the policy loss
    kl: float  # to the reference, nats
    entropy: float  # nats
    clipped: float  # tokens whose ratio was clipped
    mismatch: float  # |log-prob of the trainer - log-prob of the sampler|, nats
    tokens: float  # how many
    distill: float = 0.0  # the loss of self-distillation, without its coefficient
    taught: float = 0.0  # tokens with a teacher


def reference_values(reference: Any, batch: Batch, form: str, temperature: float) -> torch.Tensor:
    """What the KL of this form needs of the reference: log-distributions [U, V] or log-probs [T].

    Raises ConfigError for an unknown form.
    """
    if form not in KL_FORMS:
        raise ConfigError(f"Unknown KL form {form!r}; known: {', '.join(KL_FORMS)}, none.")
    logits, index = target_logits(reference, batch, temperature)
    logp = torch.log_softmax(logits, dim=-1)
    return logp if form == "exact" else target_logprobs(logp, batch, index)


def kl_terms(
    form: str, logp: torch.Tensor, chosen: torch.Tensor, reference: torch.Tensor, clamp: float
) -> torch.Tensor:
    """KL(policy || reference) for each token [T].

    "exact" sums over the vocabulary (logp and reference [T, V]). The others are ``losses.kl.kl_estimate`` on
    the sampled token (chosen and reference [T]). The log-ratio is clamped there, since k3 explodes from a
    sharp start (decision D54). Raises ConfigError for another form.
    """
    if form == "exact":
        return (logp.exp() * (logp - reference)).sum(-1)
    if form not in KL_FORMS:
        raise ConfigError(f"Unknown KL form {form!r}; known: {', '.join(KL_FORMS)}, none.")
    return kl_estimate(form, chosen, reference, clamp=clamp)


def policy_loss(model: Any, batch: Batch, settings: LossSettings) -> LossTerms:
    """The policy loss + KL - entropy bonus over the trained tokens, and self-distillation where asked for.

    The loss is ``settings.loss``: PPO-clip (Schulman et al. 2017, equation 7) or another of
    ``repro_rl.losses``.

    Each token weighs ``targets.scale``, as often as its row was sampled. ``batch.reference``: what
    ``reference_values`` gave for this form of the KL. Raises ConfigError when the KL needs it and it is None.
    """
    logits, index = target_logits(model, batch, settings.temperature)
    targets = batch.targets

    choices = targets.choices

    def per_target(values: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
        """[T] from [U]; ``among`` [G]: of the targets that were drawn from a few ids."""
        of_all = values if index is None else values.index_select(0, index)
        return of_all if choices is None or among is None else of_all.index_copy(0, choices.target, among)

    logp = torch.log_softmax(logits, dim=-1)
    among = None if choices is None else choice_logprobs(logp, choices, index)
    weight = targets.weight
    chosen = target_logprobs(logp, batch, index)
    gain, clipped = policy_gain(chosen, targets, settings.clip, settings.loss)
    with nullcontext() if settings.entropy_coef else torch.no_grad():
        entropy = per_target(entropy_of(logp), None if among is None else entropy_of(among))
    per_token = -gain
    if settings.entropy_coef:
        per_token = per_token - settings.entropy_coef * weight * entropy
    kl_sum = 0.0
    if settings.kl.active and batch.reference is None:
        raise ConfigError(
            f"The loss has a KL term of form {settings.kl.form!r}, but the batch has no reference: set "
            "batch.reference to reference_values(...), or the form to 'none'."
        )
    if settings.kl.form != "none" and batch.reference is not None:
        form, clamp = settings.kl.form, settings.kl.clamp
        kl = kl_terms(form, logp, chosen, batch.reference, clamp)
        if form == "exact" and choices is not None and among is not None:
            reference = choice_logprobs(batch.reference, choices, index)
            kl = per_target(kl, kl_terms(form, among, chosen, reference, clamp))
        elif form == "exact":
            kl = per_target(kl)
        per_token = per_token + settings.kl.coef * weight * kl
        kl_sum = float((weight * kl).sum().detach())
    total = (per_token * targets.scale).sum()
    distilled = torch.zeros(())
    taught = 0.0
    if settings.distill.coef and targets.teacher is not None:
        distilled, taught = distillation(chosen, targets, settings.distill)
        total = total + settings.distill.coef * batch.distill_scale * distilled
    with torch.no_grad():
        return LossTerms(
            total=total,
            policy_loss=float(-(gain * targets.scale).sum()),
            kl=kl_sum,
            entropy=float((weight * entropy).sum()),
            clipped=float(clipped.sum()),
            mismatch=float(((chosen - targets.logprob).abs() * weight).sum()),
            tokens=float(weight.sum()),
            distill=float(distilled),
            taught=taught,
        )


def entropy_of(logp: torch.Tensor) -> torch.Tensor:
    """The entropy in nats, [...], of log-distributions [..., V], over the last dimension."""
    return -(logp.exp() * logp).sum(-1)


def imitation_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the trained tokens in nats, each weighed ``targets.scale``, copies included.

    A scalar, the sum over the batch's T trained tokens, that carries the gradient.
    """
    return imitation_terms(model, batch)[0].sum()


def imitation_terms(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The terms of ``imitation_loss`` [T], and whether each trained token is the most probable one [T]."""
    logits, index = target_logits(model, batch, 1.0)
    chosen = target_logprobs(torch.log_softmax(logits, dim=-1), batch, index)
    terms = -(chosen * batch.targets.weight * batch.targets.scale)
    with torch.no_grad():
        best = logits.argmax(-1)
        best = best if index is None else best.index_select(0, index)
        return terms, best == batch.targets.token
