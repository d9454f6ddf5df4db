"""``check_model`` tries out a model before a run does: ``repro-rl doctor --model``.

It says what will be used. On the model itself it checks that sampled log-probs are computed ones in both
contexts. It also checks that an optimizer step learns, and that a checkpoint is the model.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from repro_rl.config import KlSection, RunConfig
from repro_rl.envs.checks import Check, Doubt, FailedCheck, guarded
from repro_rl.errors import ReproError
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.exactness import (
    Deviation,
    chat_deviation,
    is_half,
    logprobs_of,
    probe_texts,
    sampled_answers,
    window_deviation,
)
from repro_rl.policy.model.memory import memory_explained
from repro_rl.run.models import load_trained
from repro_rl.run.setup import set_up
from repro_rl.study.model_facts import free_bytes, model_facts, training_bytes
from repro_rl.train import Batch, Collation, LossSettings, Row, build_optimizer, imitation_loss, policy_loss
from repro_rl.types import Ids, TokenKind

# Mean difference of log-probs, nats, that passes. Single tokens of a real model in float32 differ by 1e-5.
TOLERANCE = 1e-5
TOLERANCE_HALF = 0.1  # as alarms.max_mismatch; rounding of bfloat16 gives .03
WINDOW_TOKENS, CHAT_TOKENS = 4, 3  # sampled for an answer
LEARNING_RATES = (1e-4, 1e-5)  # tried one after another: the first step of AdamW is as long as its rate


@dataclass(slots=True, frozen=True)
class Conformance:
    """What ``check_model`` found out."""

    model: str  # as it was named
    facts: dict[str, str]  # what will be used, in words
    checks: tuple[Check, ...]
    window: Deviation | None  # sampled beside computed log-probs of single prompts; None: sampling failed
    chat: Deviation | None  # of conversations of three turns

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)


def check_model(model: str | Path, config: RunConfig, *, prompts: bool = False) -> Conformance:
    """Load a model folder or hub name as a training run with these settings would, describe and check it.

    ``prompts``: check as well that the section ``prompt`` suits the model. A checkpoint is written into the
    system's temporary folder for a moment. Raises CheckpointError for a model that cannot be loaded or is
    refused; whatever happens later is a failed check.
    """
    policy = load_trained(config.policy, model, resumed=False, seed=config.seed)
    facts = model_facts(policy, config.train.optimizer)
    checks = _Checks(policy, config)
    results = [
        checks.result("window sampling", checks.window_sampling),
        checks.result("chat sampling", checks.chat_sampling),
        checks.result("update", checks.update),
        checks.result("learning", checks.learning),
    ]
    if prompts:
        results.append(checks.result("prompts", checks.prompts))
    with tempfile.TemporaryDirectory() as written:
        results.append(checks.result("checkpoint", lambda: checks.checkpoint(Path(written) / "model")))
    return Conformance(str(model), facts, tuple(results), checks.window, checks.chat)


class _Checks:
    """The checks of one call. Each returns its detail or raises."""

    def __init__(self, policy: TransformersPolicy, config: RunConfig):
        self.policy, self.config = policy, config
        self.tolerance = TOLERANCE_HALF if is_half(policy) else TOLERANCE
        self.texts = probe_texts(policy.codec)
        self.window: Deviation | None = None
        self.chat: Deviation | None = None
        adapter = "" if config.policy.lora.rank else "train an adapter (policy.lora.rank=16), or "
        self.less_memory = f"{adapter}take a smaller model or a larger machine"

    def result(self, name: str, check: Callable[[], str]) -> Check:
        """The result of a check; what it leaves behind where it breaks off is no matter of the next one."""
        advice = self.less_memory[0].upper() + self.less_memory[1:]
        try:
            return guarded(name, memory_explained(f"checking {name}", advice)(check), ReproError)
        finally:
            self.policy.model.zero_grad(set_to_none=True)
            self.policy.model.eval()

    def window_sampling(self) -> str:
        prompts = self._prompts()
        self.window = window_deviation(self.policy, [*prompts, prompts[0]], WINDOW_TOKENS)
        return self._agree(self.window)

    def chat_sampling(self) -> str:
        self.chat = chat_deviation(self.policy, self.texts, CHAT_TOKENS)
        return self._agree(self.chat)

    def update(self) -> str:
        """The trainer's forward pass over a batch of unequal rows, in training mode.

        Of tokens that the model samples, as in a run: in half precision the log-probs of others are coarse.
        """
        policy = self.policy
        settings = LossSettings(self.config.train.clip, KlSection(form="none"), 0.0, 1.0)
        answers = sampled_answers(policy, self._prompts(), WINDOW_TOKENS)
        batch = self._batch([self._row(answer.prompt_ids, answer.token_ids) for answer in answers])
        policy.model.train()
        with torch.no_grad(), policy.precision():
            terms = policy_loss(policy.model, batch, settings)
        policy.model.eval()
        found = terms.mismatch / terms.tokens
        if not found <= self.tolerance:
            raise FailedCheck(
                f"the trainer's log-probs differ from the model's by {found:.1e} on average: the sampler and "
                "the trainer are not one distribution; report the architecture"
            )
        return f"the trainer's log-probs are the model's ({found:.1e} on average)"

    def learning(self) -> str:
        """One optimizer step on a batch lowers its loss."""
        policy, train = self.policy, self.config.train
        needed, free = training_bytes(policy, train.optimizer), free_bytes(policy.device)
        if free is not None and needed > free:
            raise FailedCheck(
                f"gradients and optimizer need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
                f"{self.less_memory}"
            )
        batch = self._batch(self._rows())
        before = after = self._loss(batch).item()
        for rate in LEARNING_RATES:
            optimizer = build_optimizer(
                train.optimizer, policy.model, lr=rate, betas=train.betas, weight_decay=0.0
            )
            policy.model.train()
            self._loss(batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            policy.model.zero_grad(set_to_none=True)
            policy.model.eval()
            after = self._loss(batch).item()
            if after < before:
                return f"one step at lr {rate:g} lowers the loss from {before:.4f} to {after:.4f}"
        if not math.isfinite(after):
            kind = str(policy.model.dtype).removeprefix("torch.")
            raise FailedCheck(
                f"the loss is {after} after an optimizer step (it was {before:.4f}): numbers overflow the "
                f"range of {kind}; set policy.dtype=float32 or auto"
            )
        raise FailedCheck(
            f"an optimizer step does not lower the loss ({before:.4f}, then {after:.4f}); weights in half "
            "precision lose small steps: set policy.dtype=float32, or train an adapter (policy.lora.rank=16)"
        )

    def prompts(self) -> str:
        """The tokenizer knows the words of prompts, the template suits the format, and answers fit."""
        codec = self.policy.codec
        with closing(set_up(self.config)) as setup:
            remarks = setup.check_texts(codec, setup.panel(self.config.train.split).ids[0])
        if remarks:
            raise Doubt(" ".join(remarks))
        if codec.template is None:
            return "the tokenizer knows the words of the first prompt; there is no chat template"
        return "the tokenizer knows the words of the first prompt, and its chat template suits the format"

    def checkpoint(self, folder: Path) -> str:
        """Saved and loaded, the trained weights give the same log-probs."""
        policy, ids = self.policy, self.policy.codec.encode(self.texts[0])
        before = logprobs_of(policy, ids)
        policy.save(folder)
        loaded = TransformersPolicy.load(folder, self.config.policy, training=True)
        found = float(np.abs(before - logprobs_of(loaded, ids)).mean())
        if loaded.codec.encode(self.texts[0]) != ids:
            raise FailedCheck("the saved tokenizer encodes a prompt differently; report the tokenizer")
        if not found <= self.tolerance:
            raise FailedCheck(
                f"saved and loaded, the model's log-probs differ by {found:.1e} on average: its checkpoints "
                "would be another model; report the architecture to transformers"
            )
        return f"saved and loaded, the model is the same ({found:.1e})"

    def _agree(self, found: Deviation) -> str:
        if not found.mean <= self.tolerance:
            raise FailedCheck(
                f"sampled and computed log-probs differ by {found}; {self.tolerance:g} on average is allowed"
            )
        return f"sampled log-probs are the model's, {found}"

    def _rows(self) -> list[Row]:
        """Prompts of unequal length with answers of their own, each with the log-probs of a plain pass."""
        answer = self.policy.codec.encode_target(" ".join(self.texts[-1].split()[:3]))
        return [self._row(prompt, answer) for prompt in self._prompts()]

    def _prompts(self) -> list[Ids]:
        return [self.policy.codec.encode(text) for text in self.texts]

    def _row(self, prompt: Ids, answer: Ids) -> Row:
        ids = np.array((*prompt, *answer), dtype=np.int64)
        trained = np.arange(len(ids)) >= len(prompt)
        logprob = np.zeros(len(ids), dtype=np.float32)
        computed = logprobs_of(self.policy, (*prompt, *answer))
        logprob[1:] = computed[np.arange(len(ids) - 1), ids[1:]]
        return Row(
            ids=ids,
            kind=np.where(trained, TokenKind.ACT, TokenKind.CONTEXT).astype(np.int8),
            positive=trained.astype(np.float32),
            negative=np.zeros(len(ids), dtype=np.float32),
            n_positive=trained.astype(np.int32),
            n_negative=np.zeros(len(ids), dtype=np.int32),
            logprob=logprob,
            count=1,
        )

    def _batch(self, rows: list[Row]) -> Batch:
        tokens = sum(int(row.trained.sum()) for row in rows)
        return Collation.of(self.policy).collate(rows, {TokenKind.ACT: 1 / tokens})

    def _loss(self, batch: Batch) -> torch.Tensor:
        with self.policy.precision():
            return imitation_loss(self.policy.model, batch)
