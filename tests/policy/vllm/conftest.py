"""A vLLM server's stand-in with a real model, a trainer, and samplers whose waits are recorded."""

from __future__ import annotations

import pytest

from repro_rl.config import VllmSection
from repro_rl.policy.vllm.server import ServerSampler
from support.models import load_cpu, perturb
from support.vllm_server import VllmServer


@pytest.fixture
def server(tiny_folder, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = VllmServer(tiny_folder)
    yield running
    running.close()


@pytest.fixture
def policy(tiny_folder):
    """A trainer whose weights are not those that the server began with."""
    loaded = load_cpu(tiny_folder)
    perturb(loaded, 1)
    return loaded


@pytest.fixture
def make(server, policy):
    made = []

    def sampler(**more):
        waits: list[float] = []
        settings = VllmSection.model_validate(
            {"server": {"url": server.url, "retries": 3, "concurrency": 4, **more}}
        )
        one = ServerSampler(policy, settings, wait=waits.append)
        one.waits = waits
        made.append(one)
        return one

    yield sampler
    for one in made:
        one.close()
