"""Which sampler the settings choose, and why one cannot be had."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from repro_rl.config import LoraSection, PolicySection, load_config
from repro_rl.errors import ConfigError, MissingDependencyError
from repro_rl.policy.vllm.installed import importable
from repro_rl.run.models import build_sampler, load_policy, load_trained
from support.models import load_cpu


@pytest.fixture
def policy(tiny_folder):
    return load_cpu(tiny_folder)


def test_transformers_samples_itself(policy):
    assert build_sampler(load_config(None).policy, policy, 200) is policy


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_error_says_how_to_get_it(policy):
    config = load_config(None, ["policy.backend=vllm"])
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[vllm\]'.*torch 2\.13"):
        build_sampler(config.policy, policy, 200)
    assert "pip install '.[vllm]'" in importable()


def test_several_processes_are_refused(policy, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one training process"):
        build_sampler(load_config(None, ["policy.backend=vllm"]).policy, policy, 200)


def test_acting_with_an_adapters_base_needs_no_peft(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    section = PolicySection(device="cpu", lora=LoraSection(rank=4))
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[lora\]'"):
        load_trained(section, tiny_folder, resumed=False, seed=0)
    load_policy(section, tiny_folder)  # to act with, nothing is needed
