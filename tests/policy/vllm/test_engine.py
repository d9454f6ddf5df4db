"""What needs vLLM itself: an engine in this process. Run by ``make vllm-check``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm")

import torch

from repro_rl.config import LoraSection
from repro_rl.errors import ConfigError
from repro_rl.policy import SamplingSettings, build_tiny
from repro_rl.policy.vllm.colocated import ColocatedSampler
from repro_rl.policy.vllm.installed import on_cpu
from support.models import keys_of, load_cpu, perturb
from support.real_vllm import (
    LENGTH,
    PROMPTS,
    SIZE,
    SMALL_CACHE,
    check_greedy,
    check_guided,
    check_sampling,
    rescored,
)
from support.small import WORDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("model") / "model", WORDS, SIZE, seed=3)


def test_an_engine_in_this_process_follows_the_weights(folder):
    policy = load_cpu(folder)
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    check_greedy(sampler, policy)
    check_sampling(sampler, policy)
    check_guided(sampler, policy)
    before = [d.token_ids for d in sampler.generate(PROMPTS, keys_of(24), SamplingSettings(8, 0))]
    for seed in (1, 2):
        perturb(policy, seed)
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
    load_cpu(folder).codec.save(tmp_path)
    policy = load_cpu(tmp_path)
    assert policy.model.lm_head.weight is not policy.model.model.embed_tokens.weight
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    perturb(policy, 4)
    sampler.weights_changed()
    check_greedy(sampler, policy)


def test_more_prompt_tokens_than_one_step_takes(folder):
    """Seeded requests whose prompts vLLM would cut into chunks, which ends with an error on CPU."""
    policy = load_cpu(folder)
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    prompts = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(100)) for i in range(60)]
    done = sampler.generate(prompts, keys_of(60, "many"), SamplingSettings(2))
    assert all(d.tokens and d.error is None for d in done)
    np.testing.assert_allclose(done[-1].logprobs, rescored(policy, done[-1], 1.0), atol=1e-4)


def test_two_samplers_take_turns_with_one_engine(folder):
    one, two = (load_cpu(folder) for _ in range(2))
    perturb(two, 5)
    first, second = (ColocatedSampler(policy, SMALL_CACHE, LENGTH) for policy in (one, two))
    assert first.engine is second.engine
    for _ in range(2):
        check_greedy(first, one)
        check_greedy(second, two)


def test_an_adapter_is_added_to_the_weights(folder):
    pytest.importorskip("peft")
    policy = load_cpu(folder, training=True)
    policy.adapt(LoraSection(rank=4), folder, 0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    check_greedy(sampler, policy)


def test_bfloat16_differs_from_the_trainer_by_its_rounding(folder):
    policy = load_cpu(folder)
    sampler = ColocatedSampler(policy, SMALL_CACHE.model_copy(update={"dtype": "bfloat16"}), LENGTH)
    done = sampler.generate(PROMPTS, keys_of(24, "bf16"), SamplingSettings(8))
    apart = np.concatenate([np.abs(d.logprobs - rescored(policy, d, 1.0)) for d in done])
    print(f"bfloat16 against float32: mean {apart.mean():.2g}, max {apart.max():.2g}")
    assert 1e-4 < apart.mean() < 0.02
    assert apart.max() < 0.2


def test_long_prompts_are_data_not_a_crash(folder):
    policy = load_cpu(folder)
    sampler = ColocatedSampler(policy, SMALL_CACHE, LENGTH)
    prompts = ["a " * LENGTH, "a " * (LENGTH - 3), "a"]
    refused, cut, whole = sampler.generate(prompts, keys_of(3), SamplingSettings(8, 0))
    assert refused.error is not None
    assert f"fewer than {LENGTH}" in refused.error
    assert 1 <= cut.tokens <= 3
    assert whole.error is None
    assert sampler.generate([], keys_of(0), SamplingSettings(8)) == []


def test_heads_that_vllm_does_not_take_are_named(tiny_folder):
    policy = load_cpu(tiny_folder)  # 2 heads of 16
    with pytest.raises(ConfigError, match=r"16 dimensions; vLLM on CPU takes 32, 64.*policy\.tiny\.heads=1"):
        ColocatedSampler(policy, SMALL_CACHE, LENGTH)


def test_sleep_needs_a_gpu(folder):
    if not on_cpu():
        pytest.skip("this vLLM runs on a GPU")
    policy = load_cpu(folder)
    with pytest.raises(ConfigError, match=r"policy\.vllm\.sleep"):
        ColocatedSampler(policy, SMALL_CACHE.model_copy(update={"sleep": True}), LENGTH)
