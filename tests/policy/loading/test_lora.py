"""Adapters: attached, switched off, saved, merged, and what is refused."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from repro_rl.config import LoraSection, PolicySection
from repro_rl.errors import CheckpointError, ConfigError, DeviceMemoryError, MissingDependencyError
from repro_rl.policy import SamplingSettings, TransformersPolicy, load_codec
from repro_rl.policy.loading.lora import is_adapter
from repro_rl.policy.loading.merging import merged
from repro_rl.policy.model.adapter import AdapterOff, has_adapter
from repro_rl.policy.transformers_policy import AdapterOffPolicy
from repro_rl.run.models import load_trained
from support.models import equal_weights, keys_of, load_cpu, weights_of
from support.prompts import LONG


def test_without_peft_the_error_names_the_install(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    policy = load_cpu(tiny_folder, training=True, lora={"rank": 4})  # needs nothing
    assert not policy.adapted
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[lora\]'"):
        policy.adapt(LoraSection(rank=4), tiny_folder, 0)


@pytest.fixture
def adapted(tiny_folder) -> TransformersPolicy:
    """An adapter that changes what the model computes."""
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    policy = load_cpu(tiny_folder, training=True, packed=False)
    policy.adapt(LoraSection(rank=4), tiny_folder, 0)
    randomize(policy)
    return policy


def randomize(policy: TransformersPolicy, seed: int = 0) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits


def test_a_new_adapter_changes_nothing_and_follows_its_seed(tiny_folder):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    base = load_cpu(tiny_folder)
    state = torch.random.get_rng_state()
    policies = [load_cpu(tiny_folder, training=True) for _ in range(3)]
    for policy, seed in zip(policies, (1, 1, 2), strict=True):
        policy.adapt(LoraSection(rank=4), tiny_folder, seed)
        assert torch.equal(logits(policy.model), logits(base.model))
        assert policy.adapted
        assert has_adapter(policy.model)
        trained = [name for name, p in policy.model.named_parameters() if p.requires_grad]
        assert trained
        assert all("lora_" in name for name in trained)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's generator is left alone
    one, same, other = (weights_of(policy.model) for policy in policies)
    assert equal_weights(one, same)
    assert not equal_weights(one, other)


def test_adapters_are_made_and_loaded_without_a_warning(tiny_folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = load_trained(
            PolicySection(device="cpu", lora={"rank": 2}),
            tiny_folder,
            resumed=False,
            seed=0,
            gradient_checkpointing=True,
        )
        policy.save(tmp_path / "adapter")
        assert load_cpu(tmp_path / "adapter", training=True).adapted


def test_settings_reach_the_adapter(tiny_folder):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    policy = load_cpu(tiny_folder, training=True)
    settings = LoraSection(rank=3, alpha=12.0, targets=["q_proj", "v_proj"], dropout=0.2)
    policy.adapt(settings, tiny_folder, 0)
    config = policy.model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 12.0, 0.2)
    assert set(config.target_modules) == {"q_proj", "v_proj"}
    plain = load_cpu(tiny_folder, training=True)
    plain.adapt(LoraSection(rank=3), tiny_folder, 0)
    assert plain.model.peft_config["default"].lora_alpha == 6  # 2 * rank


def test_with_the_adapter_off_the_model_is_its_base(adapted, tiny_folder):
    base = load_cpu(tiny_folder, packed=False)
    assert torch.equal(logits(AdapterOff(adapted.model)), logits(base.model))
    assert not torch.equal(logits(adapted.model), logits(base.model))


@pytest.mark.parametrize("chat", [False, True])
def test_the_reference_generates_as_the_base_does(adapted, tiny_folder, chat):
    """The cached prefix of one never reaches the other."""
    base, reference = load_cpu(tiny_folder, packed=False), AdapterOffPolicy(adapted)
    assert reference.codec is adapted.codec
    keys, settings = keys_of(len(LONG)), SamplingSettings(6)

    def completions(policy):
        if chat:
            return policy.open_chat().answer(range(len(LONG)), LONG, keys, settings)
        return policy.generate(LONG, keys, settings)

    first = completions(adapted)
    for done, expected in zip(completions(reference), completions(base), strict=True):
        assert (done.token_ids, done.text) == (expected.token_ids, expected.text)
        np.testing.assert_allclose(done.logprobs, expected.logprobs, atol=1e-5)
    for done, expected in zip(completions(adapted), first, strict=True):
        assert done.token_ids == expected.token_ids
    assert any(
        a.token_ids != b.token_ids or abs(a.logprobs[0] - b.logprobs[0]) > 1e-3
        for a, b in zip(first, completions(base), strict=True)
    )


def test_a_saved_adapter_comes_with_its_base(adapted, tiny_folder, tmp_path):
    adapted.save(tmp_path / "adapter")
    assert is_adapter(tmp_path / "adapter")
    assert not is_adapter(tiny_folder)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = load_cpu(tmp_path / "adapter", packed=False)
    assert again.adapted
    assert equal_weights(weights_of(again.model), weights_of(adapted.model))
    assert not any(p.requires_grad for p in again.model.parameters())
    trained = load_cpu(tmp_path / "adapter", training=True)
    assert all(p.requires_grad == ("lora_" in name) for name, p in trained.model.named_parameters())
    text = load_codec(tmp_path / "adapter")
    assert (text.positions, text.eos_ids) == (256, {1})


def test_merging_gives_an_ordinary_model(adapted, tmp_path):
    expected = logits(adapted.model)
    copy = merged(adapted.model, "adapter")
    assert torch.allclose(logits(copy), expected, atol=1e-5)
    assert adapted.adapted  # the original is left alone
    adapted.save_merged(tmp_path / "whole")
    whole = load_cpu(tmp_path / "whole")
    assert not whole.adapted
    assert torch.allclose(logits(whole.model), expected, atol=1e-5)
    adapted.merge()
    assert not adapted.adapted
    assert torch.allclose(logits(adapted.model), expected, atol=1e-5)
    adapted.merge()  # nothing left to merge
    assert torch.allclose(logits(adapted.model), expected, atol=1e-5)


def test_training_that_begins_with_an_adapter_trains_what_it_is_merged_into(adapted, tmp_path):
    """Without an adapter of its own; peft leaves the weights under an adapter frozen."""
    adapted.save(tmp_path / "adapter")
    expected = logits(adapted.model)
    policy = load_trained(PolicySection(device="cpu"), tmp_path / "adapter", resumed=False, seed=0)
    assert not policy.adapted
    assert all(p.requires_grad for p in policy.model.parameters())
    assert torch.allclose(logits(policy.model), expected, atol=1e-5)
    section = PolicySection(device="cpu", lora=LoraSection(rank=2))
    policy = load_trained(section, tmp_path / "adapter", resumed=False, seed=0)
    trained = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_an_adapter_on_an_adapter_loads_the_first_one_merged(adapted, tmp_path):
    adapted.save(tmp_path / "first")
    second = load_cpu(tmp_path / "first", training=True, packed=False)
    second.merge()
    second.adapt(LoraSection(rank=2), tmp_path / "first", 1)
    randomize(second, 1)
    second.save(tmp_path / "second")
    again = load_cpu(tmp_path / "second", packed=False)
    assert torch.allclose(logits(again.model), logits(second.model), atol=1e-5)


def test_bad_targets_and_lost_bases_are_named(adapted, tiny_folder, tmp_path):
    policy = load_cpu(tiny_folder, training=True)
    with pytest.raises(ConfigError, match=r"policy\.lora\.targets: .*q_prog"):
        policy.adapt(LoraSection(rank=2, targets=["q_prog"]), tiny_folder, 0)
    folder = tmp_path / "adapter"
    adapted.save(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    assert config["base_model_name_or_path"] == str(Path(tiny_folder).resolve())
    path.write_text(json.dumps(config | {"base_model_name_or_path": "/gone/model"}))
    with pytest.raises(CheckpointError, match=r"an adapter on /gone/model, which is not there"):
        load_cpu(folder)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="names no base model"):
        load_cpu(folder)


def test_broken_adapter_weights_are_named(adapted, tmp_path):
    folder = tmp_path / "adapter"
    adapted.save(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(CheckpointError, match="Cannot load the adapter in") as caught:
        TransformersPolicy.load(folder, PolicySection(device="cpu"))
    assert "\n" not in str(caught.value)


def test_an_adapter_that_finds_no_memory_is_not_called_broken(adapted, tmp_path, monkeypatch):
    import peft

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    adapted.save(tmp_path / "adapter")
    monkeypatch.setattr(peft.PeftModel, "from_pretrained", full)
    with pytest.raises(DeviceMemoryError, match=r"while loading the adapter in .*Take a smaller model"):
        TransformersPolicy.load(tmp_path / "adapter", PolicySection(device="cpu"))
