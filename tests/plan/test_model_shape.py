"""Dimensions against real models, counted bytes against torch's own."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import torch
from transformers import GPT2Config

from repro_rl.config import PolicySection, load_config
from repro_rl.errors import ConfigError, DataError
from repro_rl.plan.model_shape import ModelShape, model_shape, read_shape
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.loading.qwen_shapes import Shape, model_config, shapes
from support.gguf_files import byte_level_keys, random_model, write_gguf
from support.qwen import small_shape


def shape_of(model: str) -> ModelShape:
    return model_shape(load_config(None, [f"policy.model={model}"]).policy)


def test_dimensions_give_the_models_parameters(tiny_folder):
    published = {"Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304, "Qwen/Qwen2.5-7B": 7_615_616_512}
    published |= {"Qwen/Qwen3-4B": 4_022_468_096, "Qwen/Qwen3-8B": 8_190_735_360}
    for model, parameters in published.items():
        assert shape_of(model).parameters == parameters
    real = TransformersPolicy.load(tiny_folder, PolicySection(device="cpu")).model
    assert read_shape(tiny_folder).parameters == sum(p.numel() for p in real.parameters())
    with pytest.raises(ConfigError, match=r"'Qwen/Qwen3-4C' is not known here; did you mean 'Qwen/Qwen3-4B'"):
        shape_of("Qwen/Qwen3-4C")
    assert len(shapes()) >= 10


def test_a_folder_is_read_where_the_settings_name_one(tiny_folder, tmp_path):
    policy = load_config(None, [f"policy.model={tiny_folder}"]).policy
    assert model_shape(policy) == read_shape(tiny_folder)
    assert model_shape(load_config(None, []).policy, init=str(tiny_folder)) == read_shape(tiny_folder)
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(ConfigError, match="does not describe a decoder"):
        read_shape(tmp_path)
    with pytest.raises(DataError, match=r"none/config.json: no configuration of a model"):
        read_shape(tmp_path / "none")


def test_a_model_of_another_kind_is_named(tmp_path, monkeypatch):
    """GPT-2 has other names for its dimensions; it may be in the hub's cache or in a GGUF file."""
    other = {"model_type": "gpt2", "n_head": 12, "n_embd": 768}
    words = r"does not describe a decoder like Llama or Qwen: 'num_attention_heads' is missing"
    monkeypatch.setattr("repro_rl.plan.model_shape._downloaded", lambda model: other)
    with pytest.raises(ConfigError, match=rf"^somebody/gpt {words}"):
        shape_of("somebody/gpt")
    file = tmp_path / "m.gguf"
    file.touch()
    monkeypatch.setattr("repro_rl.plan.model_shape.read_config", lambda path: GPT2Config())
    with pytest.raises(ConfigError, match=rf"m\.gguf {words}"):
        read_shape(file)


def test_an_adapter_has_the_dimensions_of_its_base(tiny_folder, tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for adapter, base in ((inner, tiny_folder), (outer, inner)):
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert shape_of(str(outer)) == read_shape(tiny_folder)
    assert model_shape(load_config(None, []).policy, init=str(inner)) == read_shape(tiny_folder)
    hub = json.dumps({"base_model_name_or_path": "Qwen/Qwen3-4B"})
    (inner / "adapter_config.json").write_text(hub)
    assert shape_of(str(outer)) == shape_of("Qwen/Qwen3-4B")
    assert model_shape(load_config(None, []).policy, init="Qwen/Qwen3-4B") == shape_of("Qwen/Qwen3-4B")


def test_models_that_are_no_qwen(tmp_path):
    """The hub says 134,515,008 for SmolLM2-135M; other shapes as torch counts them."""
    assert shape_of("HuggingFaceTB/SmolLM2-135M-Instruct").parameters == 134_515_008
    for architecture in ("llama", "qwen2", "qwen3"):
        for tied in (True, False):
            model = random_model(architecture, 304, tied=tied)
            model.save_pretrained(tmp_path / f"{architecture}-{tied}")
            shape = read_shape(tmp_path / f"{architecture}-{tied}")
            assert shape.parameters == sum(p.numel() for p in model.parameters()), architecture


def test_a_gguf_file_is_read_without_converting_it(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "cache"))
    keys = byte_level_keys()
    model = random_model("llama", len(keys["tokenizer.ggml.tokens"]), tied=True)
    file = write_gguf(tmp_path / "m.gguf", model, "llama", keys, repeat_output=True)
    shape = shape_of(str(file))
    assert shape.tied
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert model_shape(load_config(None, []).policy, init=str(file)) == shape
    assert not (tmp_path / "cache").exists()


def test_an_adapters_parameters_are_pefts(tiny_folder):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    from repro_rl.config import LoraSection

    for targets in ("all-linear", ("q_proj", "down_proj")):
        policy = TransformersPolicy.load(tiny_folder, PolicySection(device="cpu"))
        shape = read_shape(tiny_folder)
        policy.adapt(
            LoraSection(rank=3, targets=targets if isinstance(targets, str) else list(targets)),
            tiny_folder,
            0,
        )
        trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
        assert shape.adapter_parameters(3, targets) == trained


def llama_config(shape: Shape) -> Any:
    """Llama's configuration of these dimensions: as Qwen2.5's, without biases."""
    from transformers import LlamaConfig

    names = set(LlamaConfig().to_dict()) & set(shape) - {"model_type", "architectures"}
    return LlamaConfig(**{name: shape[name] for name in names})


def saved_bytes(family: str, shape: Shape, dtype: torch.dtype, autocast: bool, rows: int, width: int) -> int:
    """What a forward pass of a real model keeps for its backward pass, weights apart."""
    from transformers import AutoModelForCausalLM

    config = model_config(shape) if family != "llama" else llama_config(shape)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    seen: dict[int, tuple[int, Any]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            seen[storage._cdata] = (storage.nbytes(), tensor)  # kept alive, so that no address comes twice
        return tensor

    precision: Any = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision:
        ids = torch.zeros((rows, width), dtype=torch.long)
        model(input_ids=ids, use_cache=False, logits_to_keep=torch.arange(1))
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "llama"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "autocast"])
def test_activation_bytes_are_what_torch_keeps(family, precision):
    autocast, dtype = precision == "autocast", torch.bfloat16 if precision == "bfloat16" else torch.float32
    rows, width = 2, 64
    head = 32 if family == "qwen3" else 16
    like = "qwen2.5" if family == "llama" else family
    one = small_shape(like, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
    one |= {"intermediate_size": 200, "max_position_embeddings": 32_768}
    if family == "qwen3":
        one["head_dim"] = head
    per_layer = (
        saved_bytes(family, one | {"num_hidden_layers": 3}, dtype, autocast, rows, width)
        - saved_bytes(family, one, dtype, autocast, rows, width)
    ) / 2
    shape = ModelShape("n", 64, 1, 4, 2, head, 200, 50, True, family == "qwen3", family == "qwen2.5")
    expected = rows * width * shape.activation_bytes(2 if precision == "bfloat16" else 4, autocast)
    if autocast:  # and, once, the bfloat16 copies of the weights
        expected += 2 * shape.layer_weights
    assert per_layer == pytest.approx(expected, rel=0.01)
