"""Rates of a model on this machine: FLOP/s and seconds of decode and optimizer steps.

Decoding is measured in conversations, which every kind of model and engine of ours has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from repro_rl.config import BETAS
from repro_rl.plan.iteration_time import Rates
from repro_rl.plan.model_shape import ModelShape
from repro_rl.plan.resources import clock
from repro_rl.plan.training_setup import TrainingSetup
from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.base import ChatSession
from repro_rl.rollout.context.window import imitation_sample
from repro_rl.train import Batch, Collation, build_optimizer, imitation_loss, single_row
from repro_rl.types import TokenKind

WIDTH = 256  # tokens of a row that is trained on
ANSWER = WIDTH // 16  # of them trained
GPU_TRAINED = 8192  # most cells of the batch that is trained on, on a GPU; elsewhere one row
GPU_READ = 4096  # cells that are read in prefill, on a GPU; elsewhere one row
MOST_CONTEXT = 512  # tokens of a conversation before a measured decode step
TURN_WORDS = 4  # of the turns before it
DECODED = 32  # tokens sampled
TEMPERATURE = 20.0  # so that hardly an answer ends before that
SPARE = 160  # positions of a model that these turns and answers may need
ROWS = 8  # of the larger decode batch
OPTIMIZED = 4_000_000  # weights of a measured optimizer step


def measure_rates(
    policy: TransformersPolicy,
    shape: ModelShape,
    training: TrainingSetup,
    log: Callable[[str], None],
    context: float = MOST_CONTEXT,
    micro_tokens: int = GPU_TRAINED,
) -> Rates:
    """Short measurements with the weights of ``policy``, which stay as they are.

    ``context``: positions that the run's decode steps attend to, on average. ``micro_tokens``: cells of the
    run's micro-batches. A GPU is measured with batches of that order: for one short row it is idle most of
    the time.
    """
    positions = policy.codec.positions or MOST_CONTEXT + SPARE
    context = max(1, min(int(context), MOST_CONTEXT, positions - SPARE))
    gpu = policy.device.type == "cuda"
    trained_rows = max(1, min(micro_tokens, GPU_TRAINED) // WIDTH) if gpu else 1
    read_rows = GPU_READ // WIDTH if gpu else 1
    batch = _probe_batch(policy, shape.vocab, trained_rows)
    train_seconds = _training_seconds(policy, batch) / trained_rows
    prefill_seconds = _prefill_seconds(policy, shape.vocab, read_rows) / read_rows
    one, several = (_decode_seconds(policy, shape.vocab, rows, context) for rows in (1, ROWS))
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


def _probe_batch(policy: TransformersPolicy, vocabulary: int, rows: int) -> Batch:
    """Rows of random tokens; the last ``ANSWER`` of each are trained."""
    rng = np.random.default_rng(0)
    texts = [tuple(map(int, ids)) for ids in rng.integers(vocabulary, size=(rows, WIDTH))]
    samples = [imitation_sample(ids[:-ANSWER], ids[-ANSWER:], TokenKind.ACT) for ids in texts]
    return Collation.of(policy).collate([single_row(sample) for sample in samples], {TokenKind.ACT: 1.0})


def _training_seconds(policy: TransformersPolicy, batch: Batch) -> float:
    def train() -> None:
        with policy.precision():
            imitation_loss(policy.model, batch).backward()  # type: ignore[no-untyped-call]

    policy.model.train()
    seconds = _shortest(train, policy.device)
    policy.model.zero_grad(set_to_none=True)
    policy.model.eval()
    return seconds


def _prefill_seconds(policy: TransformersPolicy, vocabulary: int, rows: int) -> float:
    ids = torch.randint(vocabulary, (rows, WIDTH), device=policy.device)

    def read() -> None:
        with torch.no_grad(), policy.precision():
            policy.model(input_ids=ids, use_cache=False, logits_to_keep=1)

    return _shortest(read, policy.device)


def _decode_seconds(policy: TransformersPolicy, vocabulary: int, rows: int, context: int) -> float:
    """Of one new token in each of ``rows`` conversations of about ``context`` tokens, sampling included.

    The conversations differ, as those of a run do. What a turn itself costs is measured and left out. On a
    GPU they are held twice, since decoders allocate their cache and capture their graphs in the first.
    """
    rng = np.random.default_rng(rows)
    texts = [
        policy.codec.decode(tuple(map(int, ids))) for ids in rng.integers(vocabulary, size=(rows, context))
    ]
    turns = [" ".join(texts[0].split()[:TURN_WORDS])] * rows

    def answer(session: ChatSession, turns: Sequence[str], tokens: int) -> tuple[float, int]:
        """Seconds, and the most tokens that were sampled: a random answer may end early."""
        keys = rng.integers(1 << 63, size=rows, dtype=np.uint64)
        begin = clock()
        answers = session.answer(range(rows), turns, keys, SamplingSettings(tokens, TEMPERATURE))
        return clock() - begin, max(len(one.token_ids) for one in answers)

    def step() -> float:
        session = policy.open_chat()
        answer(session, texts, 1)
        answer(session, turns, 2)  # not counted
        short, _ = answer(session, turns, 1)
        long, sampled = answer(session, turns, DECODED + 1)
        for row in range(rows):
            session.close(row)
        return max(long - short, 1e-6) / max(sampled - 1, 1)

    if policy.device.type == "cuda":
        step()
    return step()


def _optimizer_seconds(optimizer: str, device: torch.device) -> float:
    """Of one step over ``OPTIMIZED`` weights."""
    layer = torch.nn.Linear(2000, OPTIMIZED // 2000, bias=False, device=device)
    stepper = build_optimizer(optimizer, layer, lr=1e-6, betas=BETAS, weight_decay=0.0)
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
