"""Memory settings: which words set them, and what may change of a policy."""

from __future__ import annotations

from repro_rl.config import RunConfig, load_config
from repro_rl.config.memory_settings import (
    MEMORY_SETTINGS,
    has_dropout,
    why_fixed,
    with_default_memory,
    without_memory,
)
from repro_rl.config.values import type_of


def test_memory_settings_of_a_policy_have_defaults():
    config = load_config(
        None, ["policy.max_cache_tokens=1024", "policy.max_batch_tokens=7", "policy.threads=2"]
    )
    plain = with_default_memory(config.policy)
    assert plain == load_config(None, ["policy.threads=2"]).policy
    assert config.policy.max_batch_tokens == 7


def test_every_memory_setting_exists():
    assert all(type_of(RunConfig, name.split(".")) is not None for name in MEMORY_SETTINGS)


def test_words_of_a_command_that_set_memory_settings_are_left_out():
    words = ["train", "-c", "small.yaml", "seed=0", "train.micro_tokens=512", "train.lr=1e-3"]
    assert without_memory(words) == ["train", "-c", "small.yaml", "seed=0", "train.lr=1e-3"]


def test_dropout_of_an_adapter_fixes_them():
    assert not has_dropout(load_config(None, ["policy.lora.rank=2"]).policy)
    assert has_dropout(load_config(None, ["policy.lora.rank=2", "policy.lora.dropout=0.1"]).policy)
    assert why_fixed(["train.lr"]) == ""
    assert "train.micro_tokens: fixed" in why_fixed(["train.lr", "train.micro_tokens"])
