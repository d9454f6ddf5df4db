"""What needs vLLM itself: a real server. Run by ``make vllm-check``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from repro_rl.config import VllmSection
from repro_rl.policy import SamplingSettings, build_tiny
from repro_rl.policy.vllm.server import ServerSampler
from support.models import keys_of, load_cpu, perturb
from support.real_vllm import SIZE, RealServer, check_greedy, check_sampling
from support.small import WORDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("model") / "model", WORDS, SIZE, seed=3)


@pytest.fixture(scope="module")
def serve(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = RealServer(folder, tmp_path_factory.mktemp("serve") / "log")
    try:
        server.ready()
        yield server
    finally:
        server.stop()


def server_section(server: RealServer, **more: Any) -> VllmSection:
    return VllmSection.model_validate({"server": {"url": server.url, "concurrency": 16, **more}})


def test_a_server_follows_the_weights(serve, folder):
    policy = load_cpu(folder)
    perturb(policy, 6)  # the server began with other weights
    sampler = ServerSampler(policy, server_section(serve))
    check_greedy(sampler, policy)
    check_sampling(sampler, policy)
    perturb(policy, 7)
    sampler.weights_changed()
    check_greedy(sampler, policy)
    long = sampler.generate(["a " * 300], keys_of(1), SamplingSettings(4))[0]
    assert long.error is not None
    assert sampler.describe()["dtype"] == "float32"
    assert list(sampler.folder.iterdir()) == []  # weights are taken away once they are loaded


def test_a_server_that_is_started_again_gets_the_weights_again(serve, folder):
    policy = load_cpu(folder)
    perturb(policy, 8)
    sampler = ServerSampler(policy, server_section(serve, retries=400, max_wait=5.0))
    serve.stop()
    serve.start()
    check_greedy(sampler, policy)  # waits for the server, and finds it without our weights
