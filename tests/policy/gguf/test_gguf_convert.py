"""GGUF files as model folders: the same logits, ties, damaged and unsupported files."""

from __future__ import annotations

import json
import sys

import gguf
import numpy as np
import pytest
import torch

from repro_rl.errors import ConfigError, DataError, MissingDependencyError, PreflightError
from repro_rl.policy.gguf import convert as module, convert_gguf
from repro_rl.policy.gguf.architectures import llama3_factors
from repro_rl.policy.gguf.header import read_header
from support.gguf_files import add_keys, byte_level_keys, permuted, random_model, write_gguf
from support.models import load_cpu

IDS = torch.tensor([[5, 17, 250, 3, 3, 99, 41, 0, 7, 12]])


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def made(tmp_path, architecture="qwen2", *, tied=False, model=None, **written):
    """A model, its file and its converted folder."""
    keys = byte_level_keys()
    model = model or random_model(architecture, len(keys["tokenizer.ggml.tokens"]), tied=tied)
    file = write_gguf(tmp_path / "m.gguf", model, architecture, keys, **written)
    return model, convert_gguf(file, tmp_path / "folder")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "smollm3"])
@pytest.mark.parametrize("tied", [True, False])
def test_float32_weights_give_the_same_logits(tmp_path, architecture, tied):
    model, folder = made(tmp_path, architecture, tied=tied)
    loaded = load_cpu(folder).model
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.config.tie_word_embeddings is tied
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied
    assert json.loads((folder / "gguf.json").read_text())["tied"] is tied
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


# What a block keeps of a value, as a share of the largest one in it: half a step, and the rounding of scales.
@pytest.mark.parametrize(
    ("quantised", "share"),
    [("F16", 2**-11), ("BF16", 2**-8), ("Q8_0", 0.005), ("Q5_1", 0.035), ("Q4_1", 0.07), ("Q4_0", 0.13)],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_quantised_weights_are_those_that_the_file_stands_for(tmp_path, architecture, quantised, share):
    model, folder = made(tmp_path, architecture, quantised=quantised)
    loaded = load_cpu(folder, dtype="float32").model.state_dict()
    kind = gguf.GGMLQuantizationType[quantised]
    for name, tensor in model.state_dict().items():
        source = tensor.numpy()
        if source.ndim == 1:
            assert np.array_equal(loaded[name].numpy(), source)
            continue
        gguf_name = name.replace("q_proj", ".attn_q.").replace("k_proj", ".attn_k.")
        stored = permuted(architecture, gguf_name, model.config, source)
        expected = gguf.dequantize(gguf.quantize(stored, kind), kind)
        got = permuted(architecture, gguf_name, model.config, loaded[name].numpy())
        assert np.array_equal(got, expected)
        blocks = np.abs(source).reshape(-1, 32).max(axis=1, keepdims=True)
        error = np.abs(loaded[name].numpy() - source)
        assert (error.reshape(-1, 32) <= share * blocks.max()).all()


@pytest.mark.parametrize("quantised", ["Q4_K", "Q6_K"])
def test_super_blocks_are_read(tmp_path, quantised):
    """The gguf package writes none of these, so the bytes are random; it says what they stand for."""
    model = random_model("qwen2", len(byte_level_keys()["tokenizer.ggml.tokens"]), hidden_size=256)
    kind = gguf.GGMLQuantizationType[quantised]
    rng = np.random.default_rng(0)
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = {}

    def quantize(values, own):
        if own != kind:
            return values
        if values.shape[-1] % per_block:
            return None
        raw = rng.integers(0, 255, (values.shape[0], values.shape[1] // per_block, size), dtype=np.uint8)
        scale = np.array([0.01], dtype=np.float16).view(np.uint8)
        raw[..., -2:] = scale  # Q6_K: the scale of the super-block
        if quantised == "Q4_K":
            raw[..., :4] = np.tile(scale, 2)
        return raw.reshape(values.shape[0], -1)

    file = tmp_path / "k.gguf"
    writer = gguf.GGUFWriter(file, "qwen2")
    add_keys(writer, model.config, "qwen2", byte_level_keys())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, model.config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        base, _, suffix = name.rpartition(".")
        data = quantize(tensor.numpy(), kind) if tensor.ndim > 1 else None
        own = kind if data is not None else gguf.GGMLQuantizationType.F32
        data = tensor.numpy() if data is None else data
        blocks[name] = gguf.dequantize(data, own)
        writer.add_tensor(f"{names.get_name(base)}.{suffix}", data, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = load_cpu(convert_gguf(file, tmp_path / "folder"), dtype="float32").model.state_dict()
    assert json.loads((tmp_path / "folder" / "gguf.json").read_text())["block_formats"][quantised] > 100_000
    for name, expected in blocks.items():
        assert np.array_equal(loaded[name].numpy(), expected), name


def test_an_output_matrix_equal_to_the_embedding_is_tied_again(tmp_path):
    model, folder = made(tmp_path, tied=True, repeat_output=True)
    assert load_cpu(folder).model.config.tie_word_embeddings
    assert torch.equal(logits(load_cpu(folder).model), logits(model))


def test_an_output_matrix_in_another_block_format_stays_its_own(tmp_path):
    """Qwen's own Q4_K_M files: a tied model whose output matrix is quantised less."""
    model = random_model("qwen2", len(byte_level_keys()["tokenizer.ggml.tokens"]), tied=True)
    _, folder = made(tmp_path, model=model, quantised="Q4_0", repeat_output="Q8_0")
    loaded = load_cpu(folder).model
    assert not loaded.config.tie_word_embeddings
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    assert torch.allclose(loaded.lm_head.weight, model.lm_head.weight, atol=0.02)


def test_many_files_of_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 100_000)
    seen = []
    keys = byte_level_keys()
    model = random_model("llama", len(keys["tokenizer.ggml.tokens"]))
    file = write_gguf(tmp_path / "m.gguf", model, "llama", keys)
    folder = convert_gguf(file, tmp_path / "folder", lambda done, total: seen.append((done, total)))
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    assert torch.equal(logits(load_cpu(folder).model), logits(model))
    values = sum(parameter.numel() for parameter in model.parameters())
    assert seen[-1] == (values, values)
    assert sorted(seen) == seen


def test_settings_are_the_models(tmp_path):
    model = random_model(
        "llama",
        len(byte_level_keys()["tokenizer.ggml.tokens"]),
        rms_norm_eps=3e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 130_000.0},
    )
    _, folder = made(tmp_path, "llama", model=model)
    config = load_cpu(folder).model.config
    assert config.rms_norm_eps == 3e-6
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 130_000.0}
    assert config.max_position_embeddings == 256
    assert torch.equal(logits(load_cpu(folder).model), logits(model))


@pytest.mark.parametrize(
    ("rope", "keys"),
    [
        (
            {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        ),
        (
            {
                "rope_type": "yarn",
                "factor": 2.5,
                "original_max_position_embeddings": 128,
                "rope_theta": 10_000.0,
            },
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 2.5,
                "llama.rope.scaling.original_context_length": 128,
            },
        ),
    ],
)
def test_stretched_positions(tmp_path, rope, keys):
    vocabulary = len(byte_level_keys()["tokenizer.ggml.tokens"])
    model = random_model("llama", vocabulary, rope_parameters=rope)
    plain = random_model("llama", vocabulary)
    _, folder = made(tmp_path, "llama", model=model, extra=keys)
    got = logits(load_cpu(folder).model)
    assert torch.equal(got, logits(model))
    assert not torch.equal(got, logits(plain))


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_llama_3s_rotary_factors(tmp_path):
    """The file holds only the factors; transformers needs the parameters they come from."""
    keys = byte_level_keys()
    vocabulary = len(keys["tokenizer.ggml.tokens"])
    model = random_model("llama", vocabulary, head_dim=64, rope_parameters=LLAMA3)
    plain = 500_000.0 ** -(np.arange(0, 64, 2) / 64)
    factors = plain / model.model.rotary_emb.inv_freq.numpy()
    assert np.allclose(factors, llama3_factors(500_000.0, 64, 32.0), rtol=1e-5)
    assert factors.min() == pytest.approx(1.0)
    assert factors.max() == pytest.approx(32.0)
    extra = {"rope_freqs.weight": factors.astype(np.float32)}
    file = write_gguf(tmp_path / "m.gguf", model, "llama", keys, tensors=extra)
    loaded = load_cpu(convert_gguf(file, tmp_path / "folder")).model
    assert loaded.config.rope_parameters == LLAMA3
    assert torch.equal(logits(loaded), logits(model))
    other = {"rope_freqs.weight": np.linspace(1, 32, 32, dtype=np.float32)}
    file = write_gguf(tmp_path / "other.gguf", model, "llama", keys, tensors=other)
    with pytest.raises(DataError, match=r"other\.gguf: its rope_freqs\.weight are not those of Llama 3"):
        convert_gguf(file, tmp_path / "other")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"qwen2.attention.sliding_window": 64},
            r"setting qwen2\.attention\.sliding_window = 64 is not known",
        ),
        ({"qwen2.expert_count": 8}, r"setting qwen2\.expert_count = 8 is not known"),
        ({"qwen2.rope.dimension_count": 8}, r"its rope\.dimension_count is 8 where heads are 16 wide"),
        ({"qwen2.rope.scaling.type": "longrope"}, r"positions are stretched in a way .*'longrope'"),
        ({"qwen2.block_count": None}, r"setting qwen2\.block_count is None"),
        ({"qwen2.block_count": 5}, r"lacks the weights of model\.layers\.4\..* and \d+ more"),
        ({"qwen2.block_count": 3}, r"tensor blk\.3\.\S+ has the shape .*the model has none"),
        (
            {"qwen2.feed_forward_length": 64},
            r"tensor blk\.0\.ffn_\S+ has the shape \[\d+, \d+\], \[\d+, \d+\] is",
        ),
        ({"qwen2.attention.head_count": 3}, r"settings make no model|is needed|not supported"),
        ({"general.architecture": "gemma9"}, r"architecture is 'gemma9'; supported are llama, qwen2"),
        ({"general.type": "adapter"}, r"holds a adapter, not a whole language model"),
        ({"split.count": 3}, r"one of 3 parts; join them with 'llama-gguf-split --merge'"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, extra, message):
    with pytest.raises(DataError, match=message) as error:
        made(tmp_path, extra=extra)
    assert str(tmp_path / "m.gguf") in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "folder").exists()
    assert not list(tmp_path.glob(".*"))


def test_tensors_that_the_architecture_lacks_are_refused(tmp_path):
    keys = byte_level_keys()
    model = random_model("llama", len(keys["tokenizer.ggml.tokens"]))
    bias = {"blk.0.attn_q.bias": np.zeros(128, dtype=np.float32)}
    file = write_gguf(tmp_path / "m.gguf", model, "llama", keys, tensors=bias)
    with pytest.raises(DataError, match=r"tensor blk\.0\.attn_q\.bias, which llama models here do not have"):
        convert_gguf(file, tmp_path / "folder")


def test_a_file_that_is_none(tmp_path):
    file = tmp_path / "m.gguf"
    with pytest.raises(DataError, match="there is no such GGUF file"):
        convert_gguf(file, tmp_path / "folder")
    for content, message in (
        (b"", "it is empty"),
        (b"PK\x03\x04" + b"\0" * 50, "no GGUF file"),
        (b"GGUF" + (1).to_bytes(4, "little") + b"\0" * 30, "GGUF version 1"),
        (b"GGUF" + (3).to_bytes(4, "big") + b"\0" * 30, "big-endian"),
        (b"GGUF" + (3).to_bytes(4, "little"), "cut off or damaged"),
        (b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 40, "cut off or damaged"),
        (b"GGUF" + (3).to_bytes(4, "little") + b"\0" * 16, "no general.architecture"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=message) as error:
            convert_gguf(file, tmp_path / "folder")
        assert str(file) in str(error.value)
    part = tmp_path / "m-00002-of-00003.gguf"
    part.write_bytes(b"GGUF")
    with pytest.raises(DataError, match="it is part 2 of 3; join them"):
        convert_gguf(part, tmp_path / "folder")


def test_a_cut_off_file_is_refused_wherever_it_ends(tmp_path):
    keys = byte_level_keys()
    model = random_model("qwen3", len(keys["tokenizer.ggml.tokens"]))
    whole = write_gguf(tmp_path / "whole.gguf", model, "qwen3", keys).read_bytes()
    file = tmp_path / "m.gguf"
    for share in np.linspace(0.001, 0.999, 60):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=r"cut off|damaged"):
            convert_gguf(file, tmp_path / "folder")


def test_damaged_bytes_are_an_error_or_change_nothing_else(tmp_path):
    """Every byte of the header in turn (a part of them): a DataError, or a file that can be read."""
    keys = byte_level_keys(size=257)
    model = random_model("qwen3", len(keys["tokenizer.ggml.tokens"]))
    file = write_gguf(tmp_path / "m.gguf", model, "qwen3", keys)
    whole = bytearray(file.read_bytes())
    end = min(entry.start for entry in read_header(file).tensors.values())
    refused = 0
    for position in range(0, end, 41):
        broken = bytearray(whole)
        broken[position] ^= 0x95
        file.write_bytes(broken)
        try:
            read_header(file)
        except DataError:
            refused += 1
    assert refused > 20


def test_values_that_are_no_numbers_are_refused(tmp_path):
    keys = byte_level_keys()
    model = random_model("qwen2", len(keys["tokenizer.ggml.tokens"]))
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3, 4] = float("nan")
    file = write_gguf(tmp_path / "m.gguf", model, "qwen2", keys)
    with pytest.raises(DataError, match=r"tensor blk\.2\.ffn_up\.weight holds values that are no finite"):
        convert_gguf(file, tmp_path / "folder")
    assert not list(tmp_path.glob(".*"))


def test_without_the_package_the_error_names_the_install(tmp_path, monkeypatch):
    keys = byte_level_keys()
    model = random_model("qwen2", len(keys["tokenizer.ggml.tokens"]))
    file = write_gguf(tmp_path / "m.gguf", model, "qwen2", keys)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[gguf\]'"):
        convert_gguf(file, tmp_path / "folder")


def test_folders_of_something_else_are_kept_and_small_disks_named(tmp_path, monkeypatch):
    keys = byte_level_keys()
    model = random_model("qwen2", len(keys["tokenizer.ggml.tokens"]))
    file = write_gguf(tmp_path / "m.gguf", model, "qwen2", keys)
    other = tmp_path / "runs"
    other.mkdir()
    (other / "precious").write_text("x")
    with pytest.raises(ConfigError, match="is not empty, and no converted model"):
        convert_gguf(file, other)
    assert (other / "precious").exists()
    convert_gguf(file, tmp_path / "folder")
    convert_gguf(file, tmp_path / "folder")  # its own folder may be replaced
    monkeypatch.setattr(module, "SPARE", 1e12)
    with pytest.raises(PreflightError, match=r"GB for the weights in float32"):
        convert_gguf(file, tmp_path / "new")
