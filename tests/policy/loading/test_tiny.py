"""The embedded model: an ordinary Hugging Face folder with a word tokenizer."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from repro_rl.config import TinySection
from repro_rl.errors import ConfigError
from repro_rl.policy import build_tiny
from support.models import TINY
from support.small import WORDS


def test_tiny_is_an_ordinary_hugging_face_folder(tiny_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    assert isinstance(model, Qwen3ForCausalLM)
    assert model.config.vocab_size == len(tokenizer) == len(WORDS) + 3
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 1
    text = "left a x7 down"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("left nonsense")["input_ids"][1] == tokenizer.unk_token_id
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_tiny_weights_follow_the_seed_and_nothing_else(tmp_path, tiny_folder):
    before = torch.random.get_rng_state()
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = build_tiny(tmp_path / "again", reversed(WORDS), TINY, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's generator is left alone
    torch.random.set_rng_state(before)
    other = build_tiny(tmp_path / "other", WORDS, TINY, seed=4)
    first = load_file(tiny_folder / "model.safetensors")
    second, third = load_file(again / "model.safetensors"), load_file(other / "model.safetensors")
    assert first.keys() == second.keys() == third.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], third["model.embed_tokens.weight"])


def test_tiny_refuses(tmp_path):
    with pytest.raises(ConfigError, match="white space"):
        build_tiny(tmp_path / "m", ["push up"])
    with pytest.raises(ConfigError, match="multiple of heads"):
        build_tiny(tmp_path / "m", ["a"], TinySection(hidden=30, heads=4))
    assert not (tmp_path / "m").exists()
