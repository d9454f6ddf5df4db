"""Codecs of models, read without their weights."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest

from repro_rl.errors import CheckpointError
from repro_rl.policy import load_codec
from repro_rl.policy.loading.codec import codec_of, model_eos_ids
from support.foreign_models import change_json
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


def test_minus_one_is_no_stop_token_and_what_is_no_id_is_named(tiny_folder, tmp_path):
    for file in ("config.json", "generation_config.json"):
        folder = shutil.copytree(tiny_folder, tmp_path / file)
        for value in (-1, [-1, 1], [1], None):
            change_json(folder / file, eos_token_id=value)
            assert load_codec(folder).eos_ids == load_cpu(folder).codec.eos_ids == {1}
        for value in ("1", [1, "2"], 1.5, True, -3, {"id": 1}):
            change_json(folder / file, eos_token_id=value)
            for load in (load_codec, load_cpu):
                with pytest.raises(CheckpointError, match=rf"{folder}.*eos_token_id"):
                    load(folder)
    assert model_eos_ids(SimpleNamespace(eos_token_id=-1)) == set()
    with pytest.raises(CheckpointError, match=r"config\.json: eos_token_id is '2', which is no token's id"):
        model_eos_ids(SimpleNamespace(eos_token_id="2"))


@pytest.mark.parametrize("text", ["[]", "{"])
def test_a_generation_configuration_that_cannot_be_read_is_named(tiny_folder, tmp_path, text):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "generation_config.json").write_text(text)
    for load in (load_codec, load_cpu):
        with pytest.raises(CheckpointError, match=r"generation_config\.json: no generation configuration"):
            load(folder)


@pytest.mark.parametrize(
    "values",
    [{"max_new_tokens": 0}, {"cache_implementation": "foo"}, {"num_return_sequences": 4}],
    ids=["length", "cache", "count"],
)
def test_settings_of_generate_refuse_no_model(tiny_folder, tmp_path, values):
    """The stop tokens beside them hold, and are saved with the model."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    change_json(folder / "generation_config.json", eos_token_id=[1, 3], **values)
    with pytest.warns(UserWarning, match=r"generation_config\.json: transformers refuses values in it"):
        policy = load_cpu(folder)
    with pytest.warns(UserWarning, match="only its stop tokens are used"):
        assert load_codec(folder).eos_ids == policy.codec.eos_ids == {1, 3}
    policy.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text())["eos_token_id"] == [1, 3]


def test_published_settings_of_sampling_are_saved_again(tiny_folder, tmp_path):
    """transformers warns of a temperature without do_sample, which many models name."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    change_json(folder / "generation_config.json", temperature=0.6, top_p=0.9, eos_token_id=[1, 3])
    load_cpu(folder).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert (saved["temperature"], saved["top_p"], saved["eos_token_id"]) == (0.6, 0.9, [1, 3])


def test_only_positive_limits_of_positions_count():
    from transformers import GPT2Config, LlamaConfig

    def positions(config):
        return codec_of(small_tokenizer("qwen3"), config, None).positions

    assert positions(LlamaConfig(max_position_embeddings=-1, vocab_size=400)) is None
    assert positions(LlamaConfig(max_position_embeddings=64, vocab_size=400)) == 64
    assert positions(GPT2Config(n_positions=32, vocab_size=400)) == 32
    # Names that only code of a folder knows mean something else in transformers.
    assert (
        positions(LlamaConfig(max_position_embeddings=64, vocab_size=400, block_size=4, seq_length=8)) == 64
    )
    own = type("OwnConfig", (LlamaConfig,), {"__module__": "transformers_modules.own"})
    assert positions(own(max_position_embeddings=64, vocab_size=400, seq_length=32)) == 32
    assert positions(own(max_position_embeddings=64, vocab_size=400, block_size=4)) == 64
    assert positions(own(max_position_embeddings=-1, vocab_size=400, block_size=16)) == 16
