"""Tokens a second of rollouts and updates at a model's shape, beside ``generate`` and the card's ceilings."""

from __future__ import annotations

import functools
import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from card import ceilings, seconds
from correctness import graph_counts
from job import Job, SpeedSizes
from journal import Deadline, Journal, OutOfTimeError
from random_model import keys, prompts, random_policy, turn, weight_bytes

from repro_rl.config import PolicySection, TrainSection
from repro_rl.plan.memory import GENERATION, KV_CACHE, memory_parts, peak
from repro_rl.plan.model_shape import ModelShape
from repro_rl.plan.training_setup import training_setup
from repro_rl.plan.workload import Workload
from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.decoding.static.pool import token_bytes
from repro_rl.policy.loading.qwen_shapes import Shape
from repro_rl.train import TrainedModel, Updater
from repro_rl.types import Completion, Sample, TokenKind


def measure(shape: Shape, job: Job, journal: Journal, stage: str, deadline: Deadline) -> None:
    """Window and chat rollouts and an update, then what ours is compared with; each written when it is known.

    Raises OutOfTimeError where the time is over before the last of them.
    """
    limits, sizes, device = ceilings(journal), job.speed, job.device
    skipped: list[str] = []

    def figure(name: str, function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        if deadline.left() > 0:
            journal.result(stage, name, function(*arguments))
        else:
            journal.result(stage, name, "skipped")
            skipped.append(name)

    policy = random_policy(shape, device, torch.bfloat16)
    figure("window", window, policy, device, sizes, limits)
    figure("chat", chat, policy, device, sizes, limits)
    policy.decoders.clear()
    del policy  # an update has the memory to itself
    figure("update", update, shape, device, sizes, limits)
    free(device)
    policy = random_policy(shape, device, torch.bfloat16)
    figure("window, transformers generate", generate, policy, device, sizes)
    plain = TransformersPolicy(
        policy.model, policy.codec, max_batch_tokens=policy.max_batch_tokens, packed=False
    )
    fewer = replace(sizes, rows=sizes.dynamic_rows)
    figure("window, dynamic cache", rollout, plain, device, fewer, 1)
    figure("window, cuDNN attention", window_with_cudnn, policy, device, sizes, limits)
    if skipped:
        raise OutOfTimeError(f"no time was left for: {'; '.join(skipped)}")


def free(device: str) -> None:
    """Give the device's memory back."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """Most bytes that tensors took since ``free``."""
    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else None


def rollout(
    policy: TransformersPolicy, device: str, sizes: SpeedSizes, repetitions: int = 3
) -> dict[str, Any]:
    """Seconds of a batch of window prompts: the first call, later ones, and their prefill alone."""
    encoded = prompts(sizes.rows, sizes.prompt, "window")

    def answer(tokens: int, *names: object) -> tuple[float, list[int]]:
        settings = SamplingSettings(tokens)
        return timed(device, lambda: policy.generate_ids(encoded, keys(sizes.rows, *names), settings))

    first, _ = answer(sizes.new, "first")
    # The median; lengths of answers are those of the same call.
    whole, lengths = sorted(answer(sizes.new, i) for i in range(repetitions))[repetitions // 2]
    prefill = statistics.median(answer(1, i)[0] for i in range(repetitions))
    sampled, steps = sum(lengths), max(max(lengths) - 1, 1)
    decoding = max(whole - prefill, 1e-9)
    return {
        "rows": sizes.rows,
        "prompt_tokens": sizes.prompt,
        "new_tokens": sizes.new,
        "sampled_tokens": sampled,
        "first_call_seconds": first,
        "seconds": whole,
        "prefill_seconds": prefill,
        "prefill_tokens_per_s": sizes.rows * sizes.prompt / prefill,
        "sampled_tokens_per_s": sampled / whole,
        "decode_tokens_per_s": (sampled - sizes.rows) / decoding,
        "step_ms": 1e3 * decoding / steps,
        "peak_bytes": peak_bytes(device),
        **graph_counts(policy),
    }


def timed(device: str, function: Callable[[], Sequence[Completion]]) -> tuple[float, list[int]]:
    """Seconds of ``function``, and the lengths of its answers: some may end early."""
    answers: list[Completion] = []
    time = seconds(device, lambda: answers.extend(function()))
    return time, [len(answer.token_ids) for answer in answers]


def window(
    policy: TransformersPolicy, device: str, sizes: SpeedSizes, limits: tuple[float, float]
) -> dict[str, Any]:
    """Ours on window prompts, and how near a decode step comes to the card's memory bandwidth."""
    free(device)
    row = rollout(policy, device, sizes)
    cached = sizes.rows * (sizes.prompt + sizes.new / 2) * token_bytes(policy.model)
    row["planned_bytes"] = sum(planned_rollout(policy.model.config, sizes, policy.max_batch_tokens).values())
    return row | step_share(policy, row["step_ms"], cached, limits[0])


def window_with_cudnn(
    policy: TransformersPolicy, device: str, sizes: SpeedSizes, limits: tuple[float, float]
) -> dict[str, Any]:
    """As ``window``, with cuDNN's attention, which ``prepare_gpu`` turns off; graphs are captured anew."""
    policy.decoders.clear()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        return window(policy, device, sizes, limits)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)


def planned_rollout(config: Any, sizes: SpeedSizes, pass_tokens: int) -> dict[str, float]:
    """The planner's bytes of this rollout in bfloat16, by part."""
    dimensions = model_dimensions(config.to_dict())
    work = replace(
        workload(sizes),
        decode_batch_cells=float(sizes.rows * (sizes.prompt + sizes.new)),
        prefill_batch_cells=float(min(sizes.rows * sizes.prompt, pass_tokens)),
        decode_rows=float(sizes.rows),
    )
    setup = training_setup(PolicySection(dtype="bfloat16"), TrainSection(), False)
    parts = memory_parts(dimensions, work, setup, gpu=True)
    return {name: parts[name] for name in ("weights", KV_CACHE, GENERATION)}


def step_share(
    policy: TransformersPolicy, step_ms: float, cache_bytes: float, bandwidth: float
) -> dict[str, Any]:
    """A decode step must read all weights and the KV cache once: that takes ``least_step_ms``."""
    if not bandwidth:
        return {}
    least = 1e3 * (weight_bytes(policy.model, policy.model.dtype.itemsize) + cache_bytes) / bandwidth
    return {"least_step_ms": least, "share_of_bandwidth": least / step_ms}


def chat(
    policy: TransformersPolicy, device: str, sizes: SpeedSizes, limits: tuple[float, float]
) -> dict[str, Any]:
    """Conversations that keep their cache: seconds a turn, all conversations together."""
    free(device)
    for name in ("first", "second"):  # buffers grow in the first, which drops graphs
        play_chat(policy, device, sizes, name)
    captured = graph_counts(policy)["graphs"]
    times, sampled = play_chat(policy, device, sizes, "third")
    read = sizes.rows * (sizes.prompt + (sizes.turns - 1) * sizes.turn)
    counts = graph_counts(policy)
    return {
        "turn_seconds": times,
        "sampled_tokens": sampled,
        "sampled_tokens_per_s": sampled / sum(times),
        "all_tokens_per_s": (read + sampled) / sum(times),
        "cache_bytes": sum(decoder.bytes() for decoder in policy.decoders._idle),
        "peak_bytes": peak_bytes(device),
        **counts,
        "graphs_while_timed": counts["graphs"] - captured,
    }


def play_chat(
    policy: TransformersPolicy, device: str, sizes: SpeedSizes, name: str
) -> tuple[list[float], int]:
    """Seconds of every turn of ``sizes.rows`` conversations, and the tokens sampled in all."""
    session, rows, times, sampled = policy.open_chat(), range(sizes.rows), [], 0
    for t in range(sizes.turns):
        size = sizes.prompt if t == 0 else sizes.turn
        texts = [turn(size, name, t, row) for row in rows]
        answer = functools.partial(
            session.answer, rows, texts, keys(sizes.rows, name, t), SamplingSettings(sizes.new)
        )
        time, lengths = timed(device, answer)
        times.append(time)
        sampled += sum(lengths)
    for row in rows:
        session.close(row)
    return times, sampled


def generate(policy: TransformersPolicy, device: str, sizes: SpeedSizes) -> dict[str, Any]:
    """``model.generate`` of transformers on the same prompts, with its own cache and as many tokens."""
    encoded = prompts(sizes.rows, sizes.prompt, "window")[: sizes.generate_rows]
    ids = torch.tensor(encoded, device=policy.device)

    def call(tokens: int) -> Callable[[], Any]:
        return lambda: policy.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=None, top_p=None,
            max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=policy.codec.pad_id,
        )  # fmt: skip

    seconds(device, call(2))
    whole, prefill = seconds(device, call(sizes.new)), seconds(device, call(1))
    return {
        "rows": len(encoded),
        "seconds": whole,
        "prefill_seconds": prefill,
        "sampled_tokens_per_s": len(encoded) * sizes.new / whole,
        "step_ms": 1e3 * (whole - prefill) / (sizes.new - 1),
    }


def update(shape: Shape, device: str, sizes: SpeedSizes, limits: tuple[float, float]) -> dict[str, Any]:
    """One optimizer step on conversations: tokens a second, MFU, and memory beside the plan's."""
    free(device)
    mixed = device.startswith("cuda")
    policy = random_policy(shape, device, torch.float32, mixed=mixed)
    train = TrainSection.model_validate(
        {
            "epochs": 1, "minibatches": 1, "micro_tokens": sizes.micro_tokens, "kl": {"form": "none"},
            "gradient_checkpointing": False, "lr": 1e-6,
        }
    )  # fmt: skip
    trained = TrainedModel(policy.model, None, policy.codec.pad_id, policy.precision, packed=False)
    updater = Updater(trained, train, 1.0)
    samples = conversations(sizes)

    def step() -> None:
        updater.update(samples, groups=4, iteration=1, seed=0)

    first = seconds(device, step)
    time = statistics.median(seconds(device, step) for _ in range(2))
    tokens = sizes.update_rows * sizes.update_tokens
    dimensions = model_dimensions(shape)
    outputs = tokens * sizes.trained_share
    forward = dimensions.forward_flops(tokens, sizes.update_tokens / 2, outputs)
    flops = training_setup(PolicySection(), train, False).update_flops(forward, forward)
    parts = memory_parts(
        dimensions, workload(sizes), training_setup(PolicySection(), train, False), gpu=mixed
    )
    return {
        "tokens": tokens,
        "first_seconds": first,
        "seconds": time,
        "tokens_per_s": tokens / time,
        "flops_per_s": flops / time,
        "mfu_of_measured_peak": flops / time / limits[1] if limits[1] else None,
        "mfu_of_989_tflops": flops / time / 989e12,
        "peak_bytes": peak_bytes(device),
        "planned_bytes": peak(parts),
        "planned_parts": parts,
    }


def conversations(sizes: SpeedSizes) -> list[Sample]:
    """Rows of random tokens, of which a share at the end is trained on."""
    rng = np.random.default_rng(0)
    samples = []
    for row, ids in enumerate(prompts(sizes.update_rows, sizes.update_tokens, "update")):
        kind = np.full(len(ids), TokenKind.CONTEXT, dtype=np.int8)
        kind[-max(1, int(len(ids) * sizes.trained_share)) :] = TokenKind.ACT
        trained = kind != TokenKind.CONTEXT
        advantage = np.where(trained, rng.normal(), 0).astype(np.float32)
        logprob = np.where(trained, -5.0, 0).astype(np.float32)
        samples.append(Sample(np.array(ids), kind, advantage, logprob, row % 4))
    return samples


def model_dimensions(shape: Mapping[str, Any]) -> ModelShape:
    """The planner's view of a shape, or of a whole configuration."""
    heads, hidden = int(shape["num_attention_heads"]), int(shape["hidden_size"])
    return ModelShape(
        name=str(shape["model_type"]),
        hidden=hidden,
        layers=int(shape["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(shape["num_key_value_heads"]),
        head_dim=int(shape.get("head_dim") or hidden // heads),
        ffn=int(shape["intermediate_size"]),
        vocab=int(shape["vocab_size"]),
        tied=bool(shape["tie_word_embeddings"]),
        qk_norms=shape["model_type"] == "qwen3",
    )


def workload(sizes: SpeedSizes) -> Workload:
    """The planner's view of the update that is measured, without a rollout."""
    rows = max(1, sizes.micro_tokens // sizes.update_tokens)
    cells = float(min(rows, sizes.update_rows) * sizes.update_tokens)
    return Workload(
        episodes=sizes.update_rows, steps=1.0, prompt=0.0, completion=0.0, reflect_prompt=0.0,
        reflect_completion=0.0, shared_prefix=0.0, longest=sizes.update_tokens, trained_reflections=0.0,
        epochs=1, optimizer_steps=1, reference=False, update_batch_cells=cells,
        update_batch_logits=cells * sizes.trained_share, decode_batch_cells=0.0, prefill_batch_cells=0.0,
        decode_rows=0.0, decode_phases=(), acting_context=0.0, reflect_context=0.0,
        trained_context=sizes.update_tokens / 2,
    )  # fmt: skip
