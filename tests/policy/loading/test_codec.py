"""Codecs of models, read without their weights."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from repro_rl.errors import CheckpointError
from repro_rl.policy import load_codec
from repro_rl.policy.loading.codec import codec_of, model_eos_ids
from support.models import load_cpu
from support.qwen import small_codec, small_tokenizer


def test_stop_tokens_are_those_of_both_configurations():
    config, generation = SimpleNamespace(eos_token_id=[3, 4]), SimpleNamespace(eos_token_id=5)
    assert model_eos_ids(config, generation) == {3, 4, 5}
    assert model_eos_ids(config) == {3, 4}
    assert model_eos_ids(SimpleNamespace()) == set()


def test_a_composite_models_limits_are_those_of_its_language_model():
    from transformers import Gemma3Config

    config = Gemma3Config(text_config={"vocab_size": 400, "max_position_embeddings": 77})
    text = codec_of(small_tokenizer("qwen3"), config, None)
    assert (text.vocabulary_size, text.positions) == (400, 77)


def test_a_codec_needs_no_weights(tiny_folder, tmp_path):
    folder = tmp_path / "no-weights"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    text, whole = load_codec(folder), load_cpu(tiny_folder).codec
    for name in ("chat", "thinking", "eos_ids", "pad_id", "positions", "vocabulary_size", "end_id"):
        assert getattr(text, name) == getattr(whole, name)
    assert text.positions == 256
    assert text.encode("left a") == whole.encode("left a")
    (folder / "generation_config.json").unlink()
    assert load_codec(folder).eos_ids == {1}


def test_a_folder_with_a_tokenizer_alone_has_no_limits(tmp_path):
    small_tokenizer("qwen3").save_pretrained(tmp_path / "tokenizer")
    text = load_codec(tmp_path / "tokenizer", thinking=True, local_only=True)
    assert (text.positions, text.vocabulary_size) == (None, len(small_tokenizer("qwen3")))
    assert text.encode("the") == small_codec("qwen3", thinking=True).encode("the")
    text.save(tmp_path / "again")
    assert load_codec(tmp_path / "again").encode("the") == small_codec("qwen3").encode("the")


def test_nothing_to_load_is_named(tiny_folder, tmp_path):
    for name in (tmp_path / "none", "nobody/has-this"):
        with pytest.raises(
            CheckpointError, match=rf"(No model folder at|Cannot load a causal LM from) {name}"
        ):
            load_codec(name)
    shutil.copytree(tiny_folder, tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{broken")
    with pytest.raises(CheckpointError, match="Cannot load a tokenizer from"):
        load_codec(tmp_path / "broken")


def test_positions_end_where_longrope_changes_its_frequencies():
    """Beyond, the log-probs of a token depend on the longest row of its pass."""
    from transformers import LlamaConfig, Phi3Config

    long = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 1e4}
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 256, "pad_token_id": 0}
    limits = {"original_max_position_embeddings": 64}
    for config in (
        Phi3Config(**sizes, **limits, rope_parameters=long),
        LlamaConfig(**sizes, rope_parameters=long | limits),
    ):
        assert codec_of(small_tokenizer("qwen3"), config, None).positions == 64
    assert codec_of(small_tokenizer("qwen3"), Phi3Config(**sizes), None).positions == 256
