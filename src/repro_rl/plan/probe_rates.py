"""Rates of a model on this machine: FLOP/s and seconds of decode and optimizer steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from repro_rl.plan.iteration_time import Rates
from repro_rl.plan.model_shape import ModelShape
from repro_rl.plan.resources import clock
from repro_rl.plan.training_setup import TrainingSetup
from repro_rl.policy import TransformersPolicy
from repro_rl.rollout.context.window import imitation_sample
from repro_rl.train import Batch, Collation, build_optimizer, imitation_loss, single_row
from repro_rl.types import TokenKind

WIDTH = 256  # tokens of the row that is trained on
ANSWER = WIDTH // 16  # of them trained
MOST_CONTEXT = 512  # tokens in the KV cache before a measured decode step
ROWS = 8  # of the larger decode batch
OPTIMIZED = 4_000_000  # weights of a measured optimizer step


def measure_rates(
    policy: TransformersPolicy,
    shape: ModelShape,
    training: TrainingSetup,
    log: Callable[[str], None],
    context: float = MOST_CONTEXT,
) -> Rates:
    """Short measurements with the weights of ``policy``, which stay as they are.

    ``context``: positions that the run's decode steps attend to, on average.
    """
    context = min(int(context), MOST_CONTEXT, (policy.text.positions or MOST_CONTEXT) - 1)
    batch = _probe_batch(policy, shape.vocab)
    train_seconds = _training_seconds(policy, batch)
    prefill_seconds = _prefill_seconds(policy, shape.vocab)
    one, several = (_decode_seconds(policy, shape.vocab, rows, max(1, context)) for rows in (1, ROWS))
    forward = shape.forward_flops(WIDTH, WIDTH / 2, ANSWER)
    layers = shape.forward_flops(WIDTH, WIDTH / 2, 0)
    rates = Rates(
        train=training.update_flops(forward, layers) / train_seconds,
        prefill=shape.forward_flops(WIDTH, WIDTH / 2, 1) / prefill_seconds,
        decode_step=one,
        decode_row=max(several - one, 0.0) / (ROWS - 1),
        optimizer_weight=_optimizer_seconds(training.optimizer, policy.device) / OPTIMIZED,
        packed=policy.uses_packed,
    )
    log(
        f"probe: {rates.train / 1e9:.1f} GFLOP/s training, {rates.prefill / 1e9:.1f} in prefill, "
        f"{1e3 * rates.decode_step:.0f} ms a decode step"
    )
    return rates


def _probe_batch(policy: TransformersPolicy, vocabulary: int) -> Batch:
    """One row of random tokens; the last ``ANSWER`` are trained."""
    rng = np.random.default_rng(0)
    ids = tuple(int(i) for i in rng.integers(vocabulary, size=WIDTH))
    row = single_row(imitation_sample(ids[:-ANSWER], ids[-ANSWER:], TokenKind.ACT))
    collation = Collation(policy.text.pad_id, policy.device, as_tree=policy.uses_packed)
    return collation.collate([row], {TokenKind.ACT: 1.0})


def _training_seconds(policy: TransformersPolicy, batch: Batch) -> float:
    def train() -> None:
        with policy.precision():
            imitation_loss(policy.model, batch).backward()  # type: ignore[no-untyped-call]

    policy.model.train()
    seconds = _shortest(train, policy.device)
    policy.model.zero_grad(set_to_none=True)
    policy.model.eval()
    return seconds


def _prefill_seconds(policy: TransformersPolicy, vocabulary: int) -> float:
    ids = torch.randint(vocabulary, (1, WIDTH), device=policy.device)

    def read() -> None:
        with torch.no_grad(), policy.precision():
            policy.model(input_ids=ids, use_cache=False, logits_to_keep=1)

    return _shortest(read, policy.device)


def _decode_seconds(policy: TransformersPolicy, vocabulary: int, rows: int, context: int) -> float:
    """Of one new token in each of ``rows`` rows with ``context`` tokens before it."""
    cache = DynamicCache(config=policy.model.config)
    with torch.no_grad(), policy.precision():
        start = torch.randint(vocabulary, (rows, context), device=policy.device)
        policy.model(input_ids=start, past_key_values=cache, use_cache=True, logits_to_keep=1)

        def decode_step() -> None:
            policy.model(input_ids=start[:, :1], past_key_values=cache, use_cache=True, logits_to_keep=1)

        return _shortest(decode_step, policy.device, repeats=3)


def _optimizer_seconds(optimizer: str, device: torch.device) -> float:
    """Of one step over ``OPTIMIZED`` weights."""
    layer = torch.nn.Linear(2000, OPTIMIZED // 2000, bias=False, device=device)
    stepper = build_optimizer(optimizer, layer, lr=1e-6, betas=(0.9, 0.99), weight_decay=0.0)
    layer.weight.grad = torch.ones_like(layer.weight)
    return _shortest(stepper.step, device)


def _shortest(work: Callable[[], Any], device: torch.device, repeats: int = 2) -> float:
    """Seconds of the shortest of ``repeats`` runs, after one that is not counted."""
    synchronize: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    seconds = []
    for _ in range(repeats + 1):
        synchronize()
        begin = clock()
        work()
        synchronize()
        seconds.append(clock() - begin)
    return min(seconds[1:])
