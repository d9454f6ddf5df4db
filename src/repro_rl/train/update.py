"""One RL update: epochs over mini-batches split by task group, on merged rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from repro_rl.config import MethodSection, TrainSection
from repro_rl.errors import PreflightError
from repro_rl.policy.packed import packable
from repro_rl.random_streams import name_key
from repro_rl.train.batch import Batch, Row, collate, merge, split_rows, split_tree, trained_tokens
from repro_rl.train.loss import imitation_loss, policy_loss, reference_values
from repro_rl.train.mismatch import Correction
from repro_rl.train.optimizers import build_optimizer
from repro_rl.train.parallel import ALONE, Ranks
from repro_rl.train.sharded import whole_tensor
from repro_rl.types import Sample

EXACT_KL_VOCABULARY = 16_384  # the reference distribution of every trained token is kept in memory


def check_kl(train: TrainSection, vocabulary: int) -> None:
    """Raises PreflightError when the exact KL would not fit."""
    if train.kl.form == "exact" and vocabulary > EXACT_KL_VOCABULARY:
        raise PreflightError(
            f"train.kl.form is 'exact' but the vocabulary has {vocabulary:,} tokens "
            f"(limit {EXACT_KL_VOCABULARY:,}); set train.kl.form=k3."
        )


def minibatch_order(groups: int, iteration: int, seed: int) -> list[int]:
    """The task groups of an iteration in the order that fills its mini-batches: they are never split."""
    order = np.random.default_rng(name_key(seed, "minibatch", iteration)).permutation(groups)
    return [int(group) for group in order]


class Updater:
    """Holds the optimizer, the reference and the settings; ``update`` changes the model in place."""

    def __init__(
        self,
        model: Any,
        reference: Any,
        pad_id: int,
        train: TrainSection,
        method: MethodSection,
        accelerator: Accelerator,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        rehearse: Callable[[int, int], list[Batch]] | None = None,
        ranks: Ranks = ALONE,
        packed: bool = True,
        correction: Correction | None = None,
    ):
        self.ranks = ranks
        self.packed = packed
        self.correction = correction  # of samples that another program drew
        self.rehearse = rehearse  # (iteration, optimizer step) -> rows to imitate
        self.precision = precision
        self.train, self.method, self.accelerator, self.pad_id = train, method, accelerator, pad_id
        self.model, self.reference = model, reference
        self.optimizer = build_optimizer(
            train.optimizer, model, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay
        )

    def learning_rate(self, iteration: int) -> float:
        """Linear warm-up over ``lr_warmup`` iterations (1-based), then constant."""
        return self.train.lr * min(1.0, iteration / max(self.train.lr_warmup, 1))

    def update(
        self, samples: Sequence[Sample], *, groups: int, iteration: int, seed: int
    ) -> dict[str, float]:
        """Run all epochs. Returns the logged means over the applied mini-batches.

        ``samples``: those of this process's groups; ``groups``: how many there are in all processes. A
        non-finite loss or gradient is never applied: its mini-batch is skipped and counted in
        ``update/skipped``.
        """
        rate = self.learning_rate(iteration)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = rate
        packed = self._packs()
        rows = self._rows(samples, groups, iteration, seed)
        parts = [self._batches(part, packed) for part in rows]
        compared = (
            self.correction.apply(self.model, parts, self.train.temperature, self.precision, packed)
            if self.correction is not None
            else {}
        )
        sums: dict[str, float] = {}
        norms: list[float] = []
        skipped = steps = 0
        self.model.train()
        for epoch in range(self.train.epochs):
            order = np.random.default_rng(name_key(seed, "order", iteration, epoch)).permutation(len(parts))
            for index in order:
                if not rows[index]:
                    continue
                batches = parts[index]
                steps += 1
                self.optimizer.zero_grad(set_to_none=True)
                finite = True
                part: dict[str, float] = {}
                for batch in batches:
                    with self.precision():
                        terms = policy_loss(
                            self.model,
                            batch,
                            clip=self.train.clip,
                            kl_form=self.train.kl.form,
                            kl_coef=self.train.kl.coef,
                            kl_clamp=self.train.kl.clamp,
                            entropy_coef=self.train.entropy_coef,
                            temperature=self.train.temperature,
                            use_packed=packed,
                        )
                    finite = finite and bool(torch.isfinite(terms.total))
                    self.accelerator.backward(terms.total * self.ranks.loss_factor)
                    _add(part, "loss", float(terms.total.detach()))
                    for name in ("policy", "kl", "entropy", "clipped", "tokens"):
                        _add(part, name, getattr(terms, name))
                    if steps == 1:  # before the first step the weights are still the sampler's
                        _add(part, "mismatch", terms.mismatch)
                        _add(part, "mismatch_tokens", terms.tokens)
                for batch in self.rehearse(iteration, steps) if self.rehearse is not None else ():
                    with self.precision():
                        loss = imitation_loss(self.model, batch, packed)
                    finite = finite and bool(torch.isfinite(loss))
                    self.accelerator.backward(loss * self.ranks.loss_factor)
                    _add(part, "rehearsal", float(loss.detach()))
                part["broken"] = float(not finite)
                part = self.ranks.sums(part)
                finite = part.pop("broken") == 0
                self.ranks.sum_gradients(self.model.parameters())
                clipped = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.grad_clip)
                norm = float(whole_tensor(clipped))
                if finite and math.isfinite(norm):
                    self.optimizer.step()
                    norms.append(norm)
                    for name, value in part.items():
                        _add(sums, name, value)
                else:
                    skipped += 1
        self.model.eval()
        tokens = max(sums.get("tokens", 0.0), 1.0)
        distinct = sum(len(part) for part in rows)
        copies = sum(row.count for part in rows for row in part)
        rehearsed = {"update/rehearsal_loss": sums.get("rehearsal", 0.0) / max(len(norms), 1)}
        return {
            "update/loss": sums.get("loss", 0.0) / max(len(norms), 1),
            "update/policy_loss": sums.get("policy", 0.0) / max(len(norms), 1),
            "update/kl": sums.get("kl", 0.0) / tokens,
            "update/entropy": sums.get("entropy", 0.0) / tokens,
            "update/clip_fraction": sums.get("clipped", 0.0) / tokens,
            "update/mismatch": sums.get("mismatch", 0.0) / max(sums.get("mismatch_tokens", 0.0), 1.0),
            "update/grad_norm": float(np.mean(norms)) if norms else 0.0,
            "update/lr": rate,
            "update/skipped": float(skipped),
            "update/distinct_rows": distinct / max(copies, 1),
            **(rehearsed if self.rehearse is not None else {}),
            **compared,
        }

    def _packs(self) -> bool:
        """Whether every forward pass runs over token trees: policy and reference must be alike."""
        models = (self.model,) if self.reference is None else (self.model, self.reference)
        with self.precision():
            return self.packed and all(map(packable, models))

    def _rows(self, samples: Sequence[Sample], groups: int, iteration: int, seed: int) -> list[list[Row]]:
        """The distinct rows of every mini-batch, those of all processes together."""
        count = self.train.minibatches
        buckets: list[list[Sample]] = [[] for _ in range(count)]
        order = minibatch_order(groups, iteration, seed)
        part_of = {group: position * count // groups for position, group in enumerate(order)}
        for sample in samples:
            buckets[part_of[sample.group]].append(sample)
        return self.ranks.merged([merge(bucket) for bucket in buckets])

    def _batches(self, rows: list[Row], packed: bool = False) -> list[Batch]:
        """This process's micro-batches of a mini-batch; a token counts 1 / all its tokens of that kind."""
        if not rows:
            return []
        tokens = {kind: max(trained_tokens(rows, kind), 1) for kind in ("forward", "reflect")}
        scales = {
            "forward": 1 / tokens["forward"],
            "reflect": self.method.reflect_coef / tokens["reflect"],
        }
        split = split_tree if packed else split_rows
        chunks = split(self.ranks.share_rows(rows), self.train.micro_tokens)
        return [self._with_reference(chunk, scales, packed) for chunk in self.ranks.even(chunks)]

    @torch.no_grad()
    def _with_reference(self, rows: list[Row], scales: dict[str, float], packed: bool) -> Batch:
        batch = collate(rows, scales, self.pad_id, self.accelerator.device)
        form = self.train.kl.form
        if self.reference is not None and form != "none":
            with self.precision():
                batch.reference = reference_values(
                    self.reference, batch, form, self.train.temperature, packed
                )
        return batch


def _add(sums: dict[str, float], name: str, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + value
