"""The sampler's log-probs against the trainer's: how far they differ, and the weights that correct for it.

Another program (vLLM) with the same weights computes other numbers: other kernels, other precision, other
order. Its samples are then slightly off-policy. With r = p_trainer / p_sampler of a sampled token, before the
update,

- the distances are logged: |log r|, KL(sampler || trainer) by Schulman's estimate r - 1 - log r, the moments
  of r;
- with a cap C, truncated importance sampling weighs the token's advantage by min(r, C). PPO's ratio is then
  taken to the trainer's own log-prob, so that its clip measures the update alone. Without a cap, PPO's ratio
  is taken to the sampler's log-prob, so its clip bounds both.

C = 2 with vLLM is decision D56; samples of the trained model itself need none. The same
correction of verl, off by default there, has a threshold of 2.

Source: Ionides 2008. For samplers of RL: Yao et al. 2025, "Your efficient RL framework secretly brings you
off-policy RL training".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from repro_rl.losses.settings import LossSection
from repro_rl.losses.tokens import MAX_LOG_RATIO
from repro_rl.train.batch import Batch
from repro_rl.train.logits import target_logits, target_logprobs

IMPORTANCE_CAP = 2.0  # of "auto"


@dataclass(slots=True)
class MismatchSums:
    """Sums over tokens, a token of a row counted as often as the row was sampled."""

    tokens: float = 0.0
    absolute: float = 0.0  # of |log r|
    kl: float = 0.0  # of r - 1 - log r
    ratio: float = 0.0
    square: float = 0.0  # of r^2
    capped: float = 0.0  # tokens with r above the cap
    largest: float = 0.0  # |log r|
    highest: float = 0.0  # r
    lowest: float = float("inf")

    def add(
        self, trainer: torch.Tensor, sampler: torch.Tensor, weight: torch.Tensor, cap: float | None
    ) -> None:
        """Log-probs of the same tokens, each counted ``weight`` times; three tensors of one shape."""
        inside = weight > 0
        if not bool(inside.any()):
            return
        count = weight[inside].double()
        difference = (trainer - sampler)[inside].double()
        bounded = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        ratio = bounded.exp()
        self.tokens += float(count.sum())
        self.absolute += float((count * difference.abs()).sum())
        self.kl += float((count * (ratio - 1 - bounded)).sum())
        self.ratio += float((count * ratio).sum())
        self.square += float((count * ratio.square()).sum())
        self.capped += float((count * (ratio > cap)).sum()) if cap is not None else 0.0
        self.largest = max(self.largest, float(difference.abs().max()))
        self.highest, self.lowest = (
            max(self.highest, float(ratio.max())),
            min(self.lowest, float(ratio.min())),
        )

    def row(self) -> dict[str, float]:
        """The logged figures; docs/metrics.md explains each."""
        tokens = max(self.tokens, 1.0)
        return {
            "update/mismatch": self.absolute / tokens,
            "update/mismatch_max": self.largest,
            "update/mismatch_kl": self.kl / tokens,
            "update/importance_mean": self.ratio / tokens,
            "update/importance_max": self.highest,
            "update/importance_min": self.lowest if self.tokens else 0.0,
            "update/importance_ess": self.ratio**2 / (tokens * self.square) if self.square else 0.0,
            "update/importance_capped": self.capped / tokens,
        }


def importance_weights(trainer: torch.Tensor, sampler: torch.Tensor, cap: float) -> torch.Tensor:
    """min(p_trainer / p_sampler, ``cap``) for each token, in the shape of both tensors of log-probs."""
    return (trainer - sampler).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().clamp(max=cap)


@dataclass(slots=True, frozen=True)
class Correction:
    """Compares every sampled token before the first step of an update; corrects when there is a ``cap``."""

    cap: float | None

    @torch.no_grad()
    def apply(
        self,
        model: Any,
        parts: Sequence[Sequence[Batch]],
        temperature: float,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> tuple[list[list[Batch]], dict[str, float]]:
        """One forward pass over all batches: the batches to train on, and the figures to log.

        With a cap the batches are corrected copies. Both sums of advantages of a row take the same weight:
        PPO's objective is linear in each (see ``batch``).
        """
        sums = MismatchSums()
        corrected = [
            [self._corrected(model, batch, temperature, precision, sums) for batch in part] for part in parts
        ]
        return corrected, sums.row()

    def _corrected(
        self,
        model: Any,
        batch: Batch,
        temperature: float,
        precision: Callable[[], AbstractContextManager[Any]],
        sums: MismatchSums,
    ) -> Batch:
        """The batch to train on; its tokens are added to ``sums``."""
        with precision():
            logits, index = target_logits(model, batch, temperature)
        targets = batch.targets
        trainer = target_logprobs(torch.log_softmax(logits, dim=-1), batch, index).to(targets.logprob.dtype)
        sums.add(trainer, targets.logprob, targets.weight, self.cap)
        if self.cap is None:
            return batch
        factor = importance_weights(trainer, targets.logprob, self.cap)
        changed = replace(
            targets,
            positive=targets.positive * factor,
            negative=targets.negative * factor,
            logprob=trainer,
        )
        return replace(batch, targets=changed)


def needs_own_logprobs(loss: LossSection, precision: torch.finfo) -> bool:
    """Whether the rounding of the sampler's log-probs alone can carry a row's ratio beyond its bounds.

    In half precision a row's mean log-ratio to another forward pass is noise above gspo's published 3e-4. A
    loss with one ratio a row and wide bounds, such as gagpo's, is not touched.
    """
    values = loss.values()
    return loss.name == "gspo" and min(values["clip_low"], values["clip_high"]) < precision.eps


def build_correction(cap: float | str, backend: str, *, own_logprobs: bool = False) -> Correction | None:
    """From ``train.importance_cap``. None: sampler and trainer are one model, and no cap is set.

    ``own_logprobs``: the loss needs the trainer's in place of the sampler's, see ``needs_own_logprobs``.
    """
    if cap == "auto" and own_logprobs:
        return Correction(IMPORTANCE_CAP)
    if cap == "off":
        return None if backend == "transformers" else Correction(None)
    if cap == "auto":
        return None if backend == "transformers" else Correction(IMPORTANCE_CAP)
    return Correction(float(cap))
