"""One RL update: epochs over mini-batches split by task group, on merged rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from repro_rl.config import TrainSection
from repro_rl.dist.ranks import ALONE, Ranks
from repro_rl.errors import PreflightError
from repro_rl.losses.aggregation import token_weight
from repro_rl.losses.settings import DistillSection
from repro_rl.policy.forward.packed import use_packed
from repro_rl.policy.model.memory import TRAINING, memory_explained
from repro_rl.random_streams import name_key
from repro_rl.train.batch import Batch, Collation, Row, Scales, merge, taught_tokens, trained_tokens
from repro_rl.train.loss import LossSettings, LossTerms, imitation_loss, policy_loss, reference_values
from repro_rl.train.mismatch import Correction
from repro_rl.train.optimizers import build_optimizer
from repro_rl.train.rank_rows import equal_counts, merge_over_ranks, share_rows
from repro_rl.train.schedule import minibatch_order
from repro_rl.train.step import apply_gradients
from repro_rl.types import Sample, TokenKind

EXACT_KL_VOCABULARY = 16_384  # of the exact KL every trained token keeps a whole distribution (decision D54)
NO_DISTILLATION = DistillSection()
Precision = Callable[[], AbstractContextManager[Any]]
Rehearse = Callable[[int, int, Collation], list[Batch]]  # of an iteration and the number of a step in it


def check_kl(form: str, vocabulary: int) -> None:
    """Raises PreflightError when the distributions of the exact KL would not fit in memory."""
    if form == "exact" and vocabulary > EXACT_KL_VOCABULARY:
        raise PreflightError(
            f"train.kl.form is 'exact' but the vocabulary has {vocabulary:,} tokens "
            f"(limit {EXACT_KL_VOCABULARY:,}); set train.kl.form=k3."
        )


@dataclass(slots=True)
class TrainedModel:
    """The model in training, with what its forward passes need."""

    model: Any  # the weights that are trained, or this rank's shard of them
    reference: Any  # the frozen reference model, or None
    pad_id: int  # token id that fills up the rows of a padded batch
    precision: Precision = nullcontext  # context of every forward pass
    packed: bool = True  # the packed engine may be used where it can

    @property
    def device(self) -> torch.device:
        """Where the weights are, and batches belong."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]


class Updater:
    """The optimizer and the settings of an RL update; ``update`` changes the model in place.

    ``rehearse``: gives the demonstrations of an optimizer step, see ``Rehearsal.batches``. ``correction``: of
    samples that another program drew.
    """

    def __init__(
        self,
        trained: TrainedModel,
        train: TrainSection,
        reflect_coef: float,
        ranks: Ranks = ALONE,
        distill: DistillSection = NO_DISTILLATION,
        *,
        rehearse: Rehearse | None = None,
        correction: Correction | None = None,
    ):
        self.trained, self.train, self.reflect_coef = trained, train, reflect_coef
        self.ranks = ranks
        self.loss = LossSettings(
            train.clip, train.kl, train.entropy_coef, train.temperature, train.loss, distill
        )
        self.rehearse, self.correction = rehearse, correction
        self.optimizer = build_optimizer(
            train.optimizer,
            trained.model,
            lr=train.lr,
            betas=train.betas,
            weight_decay=train.weight_decay,
        )

    def learning_rate(self, iteration: int) -> float:
        """Linear warm-up over ``lr_warmup`` iterations (1-based), then constant."""
        return self.train.lr * min(1.0, iteration / max(self.train.lr_warmup, 1))

    @memory_explained("updating the weights", TRAINING)
    def update(
        self,
        samples: Sequence[Sample],
        *,
        groups: int,
        iteration: int,
        seed: int,
        before_step: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Run all epochs. Returns the logged means over the applied mini-batches.

        ``samples``: those of this rank's groups; ``groups``: how many there are on all ranks;
        ``before_step``: called before weights change. A non-finite
        loss or gradient is never applied: its mini-batch is skipped and counted in ``update/skipped``.
        """
        rate = self.learning_rate(iteration)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = rate
        collation = self._collation()
        rows = self._rows(samples, groups, iteration, seed)
        parts = [self._batches(part, collation) for part in rows]
        compared: dict[str, float] = {}
        model = self.trained.model
        if self.correction is not None:
            parts, compared = self.correction.apply(
                model, parts, self.train.temperature, self.trained.precision
            )
        log = UpdateLog()
        model.train()
        for epoch in range(self.train.epochs):
            order = np.random.default_rng(name_key(seed, "order", iteration, epoch)).permutation(len(parts))
            for index in order:
                if rows[index]:
                    log.steps += 1
                    extra = self._rehearsal(iteration, log.steps, collation)
                    self._step(parts[index], extra, log, before_step)
        model.eval()
        distinct = sum(len(part) for part in rows)
        copies = sum(row.count for part in rows for row in part)
        return {
            **log.row(rehearsed=self.rehearse is not None),
            **(log.distilled() if self.loss.distill.coef else {}),
            "update/lr": rate,
            "update/distinct_rows": distinct / max(copies, 1),
            **compared,
        }

    def _step(
        self,
        batches: Sequence[Batch],
        rehearsed: Sequence[Batch],
        log: UpdateLog,
        before_step: Callable[[], None],
    ) -> None:
        """One optimizer step on a mini-batch, or none where a loss or gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        sums: defaultdict[str, float] = defaultdict(float)
        finite = True
        for batch in batches:
            with self.trained.precision():
                terms = policy_loss(self.trained.model, batch, self.loss)
            finite = finite and bool(torch.isfinite(terms.total))
            (terms.total * self.ranks.loss_factor).backward()  # type: ignore[no-untyped-call]
            log.add_terms(sums, terms)
        for batch in rehearsed:
            with self.trained.precision():
                loss = imitation_loss(self.trained.model, batch)
            finite = finite and bool(torch.isfinite(loss))
            (loss * self.ranks.loss_factor).backward()  # type: ignore[no-untyped-call]
            sums["rehearsal"] += float(loss.detach())
        sums["broken"] += float(not finite)
        total = self.ranks.sums(dict(sums))
        finite = total.pop("broken") == 0
        before_step()
        norm = apply_gradients(
            self.trained.model, self.optimizer, self.ranks, self.train.grad_clip, finite=finite
        )
        if norm is None:
            log.skipped += 1
        else:
            log.applied(total, norm)

    def _rehearsal(self, iteration: int, step: int, collation: Collation) -> list[Batch]:
        return [] if self.rehearse is None else self.rehearse(iteration, step, collation)

    def _collation(self) -> Collation:
        """Token trees where policy and reference both run in the packed engine: they must be alike."""
        trained = self.trained
        models = [trained.model] if trained.reference is None else [trained.model, trained.reference]
        as_tree = use_packed(trained.packed, *models)
        return Collation(trained.pad_id, trained.device, as_tree)

    def _rows(self, samples: Sequence[Sample], groups: int, iteration: int, seed: int) -> list[list[Row]]:
        """The distinct rows of every mini-batch, those of all ranks together."""
        count = self.train.minibatches
        buckets: list[list[Sample]] = [[] for _ in range(count)]
        order = minibatch_order(groups, iteration, seed)
        bucket_of = {group: position * count // groups for position, group in enumerate(order)}
        for sample in samples:
            buckets[bucket_of[sample.group]].append(sample)
        return merge_over_ranks(self.ranks, [merge(bucket) for bucket in buckets])

    def _batches(self, rows: list[Row], collation: Collation) -> list[Batch]:
        """This rank's micro-batches of a mini-batch.

        Tokens of answers are aggregated as ``train.loss`` says; those of reflections are always averaged, so
        they weigh ``reflect_coef`` in all. So are rehearsed and distilled ones.
        """
        if not rows:
            return []
        scales: Scales = {
            TokenKind.ACT: self._answer_scale(rows),
            # Reflections are far longer than answers: as rows or sums they would outweigh them.
            TokenKind.REFLECT: self.reflect_coef / max(trained_tokens(rows, TokenKind.REFLECT), 1),
        }
        taught = 1 / max(taught_tokens(rows), 1)
        chunks = collation.split(share_rows(self.ranks, rows), self.train.micro_tokens)
        return [
            self._with_reference(replace(collation.collate(chunk, scales), distill_scale=taught))
            for chunk in equal_counts(self.ranks, chunks)
        ]

    def _answer_scale(self, rows: list[Row]) -> float | Callable[[Any], Any]:
        """Weight of an answer's token, by ``train.loss.aggregation``, over all copies of the mini-batch."""
        how, tokens = self.train.loss, trained_tokens(rows, TokenKind.ACT)
        if how.aggregation == "token-mean":
            return 1.0 / max(tokens, 1)
        with_tokens = sum(row.count for row in rows if (row.kind == TokenKind.ACT).any())
        weight: Callable[[Any], Any] = token_weight(
            how.aggregation, tokens=tokens, rows=with_tokens, scale=how.scale
        )
        return weight

    @torch.no_grad()
    def _with_reference(self, batch: Batch) -> Batch:
        form, reference = self.loss.kl.form, self.trained.reference
        if reference is None or form == "none":
            return batch
        with self.trained.precision():
            values = reference_values(reference, batch, form, self.loss.temperature)
        return replace(batch, reference=values)


class UpdateLog:
    """What an update logs: sums over the mini-batches that were applied."""

    def __init__(self) -> None:
        self.steps = self.skipped = 0
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.norms: list[float] = []

    def add_terms(self, sums: defaultdict[str, float], terms: LossTerms) -> None:
        """Add the terms of a micro-batch to the ``sums`` of its mini-batch."""
        sums["loss"] += float(terms.total.detach())
        sums["policy"] += terms.policy_loss
        sums["kl"] += terms.kl
        sums["entropy"] += terms.entropy
        sums["clipped"] += terms.clipped
        sums["tokens"] += terms.tokens
        sums["distill"] += terms.distill
        sums["taught"] += terms.taught
        if not self.norms:  # before the first optimizer step the weights are still the sampler's
            sums["mismatch"] += terms.mismatch
            sums["mismatch_tokens"] += terms.tokens

    def applied(self, sums: dict[str, float], norm: float) -> None:
        """An optimizer step was taken, with this norm of the gradient."""
        self.norms.append(norm)
        for name, value in sums.items():
            self.sums[name] += value

    def distilled(self) -> dict[str, float]:
        """The metrics of self-distillation."""
        sums = self.sums
        if not self.norms:
            return {}
        return {
            "update/distill_loss": sums["distill"] / max(sums["taught"], 1.0),
            "update/distill_share": sums["taught"] / max(sums["tokens"], 1.0),
        }

    def row(self, *, rehearsed: bool) -> dict[str, float]:
        """The metrics; docs/metrics.md explains each. Without an applied step only how many were skipped."""
        sums, steps = self.sums, len(self.norms)
        if not steps:
            return {"update/skipped": float(self.skipped)}
        tokens = max(sums["tokens"], 1.0)
        row = {
            "update/loss": sums["loss"] / steps,
            "update/policy_loss": sums["policy"] / steps,
            "update/kl": sums["kl"] / tokens,
            "update/entropy": sums["entropy"] / tokens,
            "update/clip_fraction": sums["clipped"] / tokens,
            "update/mismatch": sums["mismatch"] / max(sums["mismatch_tokens"], 1.0),
            "update/grad_norm": float(np.mean(self.norms)),
            "update/skipped": float(self.skipped),
        }
        return row | ({"update/rehearsal_loss": sums["rehearsal"] / steps} if rehearsed else {})
