"""vLLM's engine in this process against our own sampler: CPU time, and how far its log-probs are off.

Random weights, one thread. CPU time, not wall time: it says the same on a busy machine. In an environment
with vLLM: python benchmarks/vllm_sampling.py [--dtype bfloat16] [--hidden 64 --layers 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from repro_rl.config import PolicySection, TinySection, VllmSection
from repro_rl.policy import SamplingSettings, TransformersPolicy, build_tiny
from repro_rl.policy.vllm.colocated import ColocatedSampler
from repro_rl.random_streams import name_key
from repro_rl.types import Completion


def prompts_of(count: int, length: int, distinct: int, vocabulary: int) -> list[tuple[int, ...]]:
    """Prompts that share half of their tokens, ``distinct`` of them, as grouped rollouts have."""
    rng = np.random.default_rng(0)
    shared = rng.integers(3, vocabulary, length // 2).tolist()
    tails = [rng.integers(3, vocabulary, length - length // 2).tolist() for _ in range(distinct)]
    return [tuple(shared + tails[i % distinct]) for i in range(count)]


def apart(policy: TransformersPolicy, done: list[Completion]) -> np.ndarray:
    """|log-prob of the sampler - log-prob of the trainer's forward pass| of every sampled token."""
    out = []
    for one in done:
        ids = torch.tensor([[*one.prompt_ids, *one.token_ids]])
        start = len(one.prompt_ids) - 1
        with torch.no_grad():
            logp = torch.log_softmax(policy.model(ids).logits[0, start:-1].float(), -1)
        ours = logp.gather(-1, torch.tensor(one.token_ids)[:, None])[:, 0].numpy()
        out.append(np.abs(ours - one.logprobs))
    return np.concatenate(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=80)
    parser.add_argument("--new", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = [f"w{i}" for i in range(500)]
    heads = options.hidden // 32
    size = TinySection(
        hidden=options.hidden,
        layers=options.layers,
        heads=heads,
        kv_heads=heads,
        ffn=4 * options.hidden,
        positions=1024,
    )
    with tempfile.TemporaryDirectory() as name:
        model = build_tiny(Path(name) / "model", words, size)
        policy = TransformersPolicy.load(model, PolicySection(device="cpu"))
    sampler = ColocatedSampler(policy, VllmSection(dtype=options.dtype, cache_gb=0.5), 512)
    parameters = sum(p.numel() for p in policy.model.parameters())
    print(f"{parameters:,} parameters, {options.rows} prompts x {options.length} + {options.new} tokens")
    settings = SamplingSettings(options.new)
    for label, distinct in (("all prompts different", options.rows), ("groups of 8", options.rows // 8)):
        prompts = prompts_of(options.rows, options.length, distinct, len(words))
        for who, one in (("transformers", policy), ("vllm", sampler)):
            spent, tokens, far = [], 0, []
            for turn in range(options.rounds + 1):
                keys = np.array([name_key(turn, i) for i in range(options.rows)], dtype=np.uint64)
                one.weights_changed()  # every round has new weights, as in training: no cached prompts
                begin = time.process_time()
                done = one.generate_ids(prompts, keys, settings)
                if turn:  # the first warms up
                    spent.append(time.process_time() - begin)
                    tokens += sum(d.tokens for d in done)
                    far.append(apart(policy, done))
            off = np.concatenate(far)
            print(
                f"{label:22} {who:12} {1e3 * np.median(spent):8.0f} ms CPU a round "
                f"{tokens / sum(spent):8.0f} new tokens / CPU-s   "
                f"mismatch mean {off.mean():.1e} max {off.max():.1e}"
            )
    begin = time.process_time()
    for _ in range(20):
        sampler.weights_changed()
    print(f"weights taken over: {(time.process_time() - begin) / 20 * 1e3:.1f} ms CPU")


if __name__ == "__main__":
    main()
