"""What the sampler reports against what the trainer computes, saved models, and adapters on and off."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from job import TOY_SHAPE, Job
from journal import Deadline, Journal
from numpy.typing import NDArray
from random_model import keys, prompts, random_policy

from repro_rl.config import LoraSection, PolicySection
from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.decoding.static.step import EagerSteps, GraphedSteps
from repro_rl.policy.loading.qwen_shapes import find_shape
from repro_rl.policy.transformers_policy import AdapterOffPolicy
from repro_rl.types import Completion, Ids

ROWS, TOKENS = 16, 24  # prompts, and sampled tokens of each


def measure(job: Job, journal: Journal, stage: str, deadline: Deadline, work: Path) -> None:
    """All checks, in order of their weight; each is written as soon as it is known."""
    shape = TOY_SHAPE if job.toy else find_shape("Qwen/Qwen2.5-0.5B")
    assert shape is not None
    for dtype, mixed, name in (
        (torch.float32, False, "float32"),
        (torch.bfloat16, False, "bfloat16"),
        (torch.float32, True, "float32 under autocast"),
    ):
        policy = random_policy(shape, job.device, dtype, mixed=mixed)
        journal.result(stage, f"sampler and trainer, {name}", compare(policy, texts(policy)))
        journal.result(stage, f"decoders, {name}", decoders(policy))
        del policy
    policy = random_policy(shape, job.device, torch.float32)
    journal.result(stage, "adapter", adapter(policy, work))
    del policy
    if job.model != "tiny" and deadline.left() > 0:
        pretrained(job, journal, stage)


def pretrained(job: Job, journal: Journal, stage: str) -> None:
    """The model that will be trained, as it acts (bfloat16) and as it is trained (autocast), on real text."""
    for training in (False, True):
        settings = PolicySection(model=job.model, device=job.device)
        policy = TransformersPolicy.load(job.model, settings, training=training)
        text = [f"Name {n} things that one can find in a kitchen, and where." for n in range(2, 2 + ROWS)]
        encoded = [policy.codec.encode(each) for each in text]
        name = "in training" if training else "to evaluate"
        journal.result(stage, f"pretrained, {name}", compare(policy, encoded))
        if not training:
            done = policy.generate_ids(encoded[:2], keys(2), SamplingSettings(TOKENS, temperature=0))
            journal.result(stage, "pretrained, greedy answers", [c.text for c in done])
            journal.result(stage, "save and load", saved(policy, encoded[0]))


def texts(policy: TransformersPolicy) -> list[Ids]:
    """Prompts of different lengths, some equal, that begin alike."""
    start = prompts(1, 24, "start")[0]
    return [(*start, *prompts(1, 4 + row % 7, row % 11)[0]) for row in range(ROWS)]


def compare(policy: TransformersPolicy, encoded: Sequence[Ids]) -> dict[str, Any]:
    """Differences of log-probs, in nats: the sampler's against those of the trainer's pass."""
    done = policy.generate_ids(encoded, keys(len(encoded), "compare"), SamplingSettings(TOKENS))
    sampled = np.concatenate([c.logprobs for c in done])
    trained = np.concatenate([trainer_logprobs(policy, c) for c in done])
    difference = sampled.astype(np.float64) - trained
    ratio = np.exp(-difference)
    return {
        "tokens": len(difference),
        "mean_abs": float(np.abs(difference).mean()),
        "p99_abs": float(np.quantile(np.abs(difference), 0.99)),
        "max_abs": float(np.abs(difference).max()),
        "ratio_min": float(ratio.min()),
        "ratio_max": float(ratio.max()),
        "static_cache": policy.uses_static,
        **graph_counts(policy),
    }


@torch.no_grad()
def trainer_logprobs(policy: TransformersPolicy, completion: Completion) -> NDArray[np.float64]:
    """Of a completion's tokens [N], by one pass in the precision of the update."""
    ids = torch.tensor([(*completion.prompt_ids, *completion.token_ids)], device=policy.device)
    with policy.precision():
        logits = policy.model(input_ids=ids, use_cache=False).logits[0]
    first = len(completion.prompt_ids) - 1
    logprobs = torch.log_softmax(logits[first:-1].float(), dim=-1)
    picked = logprobs[torch.arange(len(logprobs)), ids[0, first + 1 :]]
    return picked.double().cpu().numpy()


def decoders(policy: TransformersPolicy) -> dict[str, Any]:
    """Tokens and log-probs of graphs, of steps from Python, and of the decoder with a growing cache."""
    encoded, settings = texts(policy), SamplingSettings(TOKENS)
    graphs = policy.generate_ids(encoded, keys(ROWS, "decoders"), settings)
    out: dict[str, Any] = graph_counts(policy)
    for decoder in policy.decoders._idle:
        decoder.runner = EagerSteps()
    eager = policy.generate_ids(encoded, keys(ROWS, "decoders"), settings)
    plain = TransformersPolicy(policy.model, policy.codec, mixed=policy.mixed, packed=False)
    dynamic = plain.generate_ids(encoded, keys(ROWS, "decoders"), settings)
    policy.decoders.clear()
    return out | {
        "steps from Python": differences(graphs, eager),
        "dynamic cache": differences(graphs, dynamic),
    }


def graph_counts(policy: TransformersPolicy) -> dict[str, Any]:
    """How many graphs were captured and steps replayed so far."""
    runners = [decoder.runner for decoder in policy.decoders._idle]
    graphed = [runner for runner in runners if isinstance(runner, GraphedSteps)]
    return {
        "graphs": sum(runner.captured for runner in graphed),
        "replayed_steps": sum(runner.replayed for runner in graphed),
        "graphs_refused": " ".join(runner.refused for runner in graphed),
    }


def differences(left: Sequence[Completion], right: Sequence[Completion]) -> dict[str, Any]:
    """Rows with equal tokens, and the largest difference of log-probs while tokens are equal."""
    equal, worst = 0, 0.0
    for one, two in zip(left, right, strict=True):
        equal += one.token_ids == two.token_ids
        same = 0
        while (
            same < min(len(one.token_ids), len(two.token_ids)) and one.token_ids[same] == two.token_ids[same]
        ):
            same += 1
        if same:
            worst = max(worst, float(np.abs(one.logprobs[:same] - two.logprobs[:same]).max()))
    return {"rows": len(left), "equal_rows": equal, "max_abs": worst}


@torch.no_grad()
def saved(policy: TransformersPolicy, ids: Ids) -> dict[str, float]:
    """Largest difference of logits before saving and after loading."""
    tokens = torch.tensor([ids], device=policy.device)
    before = policy.model(input_ids=tokens).logits
    with tempfile.TemporaryDirectory() as name:
        policy.save(Path(name))
        dtype = str(policy.model.dtype).removeprefix("torch.")
        again = TransformersPolicy.load(name, PolicySection(device=str(policy.device), dtype=dtype))
        after = again.model(input_ids=tokens).logits
    return {"max_abs_logits": float((before - after).abs().max())}


@torch.no_grad()
def adapter(policy: TransformersPolicy, work: Path) -> dict[str, Any]:
    """An adapter on, off, saved and loaded: the base's logits come back, the sampler follows the switch."""
    ids = torch.tensor([texts(policy)[0]], device=policy.device)
    base = policy.model(input_ids=ids).logits
    policy.adapt(LoraSection(rank=8), work / "base", seed=0)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.02)
    on = policy.model(input_ids=ids).logits
    with policy.model.disable_adapter():
        off = policy.model(input_ids=ids).logits
    sampled_on = compare(policy, texts(policy))
    without = AdapterOffPolicy(policy).generate_ids(
        texts(policy), keys(ROWS, "off"), SamplingSettings(TOKENS)
    )
    with policy.model.disable_adapter():
        trained = np.concatenate([trainer_logprobs(policy, c) for c in without])
    return {
        "max_abs_off_to_base": float((off - base).abs().max()),
        "max_abs_on_to_base": float((on - base).abs().max()),
        "sampler and trainer, on": sampled_on,
        "sampler and trainer, off, max_abs": float(
            np.abs(np.concatenate([c.logprobs for c in without]) - trained).max()
        ),
    }
