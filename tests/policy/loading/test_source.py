"""Adapters made elsewhere: their base model, their tokenizer, their embeddings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from repro_rl.errors import CheckpointError
from repro_rl.policy import load_codec
from repro_rl.policy.loading.lora import base_of
from repro_rl.policy.loading.source import find_source
from support.foreign_models import LLAMA_LIKE, change_json, save_foreign
from support.models import load_cpu

peft = pytest.importorskip("peft", reason="needs repro-rl[lora]")


def foreign_adapter(folder: Path, base: Path, tokens: tuple[str, ...] = (), **settings) -> Path:
    """An adapter made with peft and transformers alone; ``tokens`` are added to the tokenizer before."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if tokens:
        tokenizer.add_tokens(list(tokens))
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    settings = {"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.5} | settings
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.3)
    adapted.save_pretrained(folder)
    if tokens:
        tokenizer.save_pretrained(folder)
    torch.save(logits(adapted.eval(), len(tokenizer) - 1), folder / "logits.pt")
    return folder


def logits(model, last: int) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[3, 4, 5, last]])).logits


@pytest.fixture
def base(tiny_folder, tmp_path) -> Path:
    return save_foreign(
        tmp_path / "models" / "base", tiny_folder, "llama", tie_word_embeddings=False, **LLAMA_LIKE
    )


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    return foreign_adapter(tmp_path / "models" / "adapter", base)


def name_base(adapter: Path, value: object) -> None:
    change_json(adapter / "adapter_config.json", base_model_name_or_path=value)


@pytest.mark.parametrize("value", ["{base}", "../base", "models/base", "base"])
def test_where_a_base_is_looked_for(base, adapter, value, monkeypatch):
    """Absolute, beside the adapter (two ways), and from the working directory."""
    monkeypatch.chdir(adapter.parent.parent)
    name_base(adapter, value.format(base=base))
    source = find_source(adapter)
    assert Path(source.model).samefile(base)
    assert source.adapters == (adapter,)
    assert torch.allclose(logits(load_cpu(adapter).model, 54), torch.load(adapter / "logits.pt"), atol=1e-5)


@pytest.mark.parametrize(
    "value", [None, "", "  ", 3, "/gone/base", "../gone", "./gone", "models/gone", "gone"]
)
def test_an_unclear_base_is_an_error_that_says_what_to_write(adapter, value, monkeypatch):
    monkeypatch.chdir(adapter.parent.parent)
    name_base(adapter, value)
    for load in (find_source, load_cpu, load_codec):
        with pytest.raises(CheckpointError) as caught:
            load(adapter)
        for part in (str(adapter), "base_model_name_or_path", "adapter_config.json: write there the folder"):
            assert part in str(caught.value)


def test_a_base_on_the_hub_that_is_not_there_says_it_too(adapter):
    name_base(adapter, "nobody/has-this")
    with pytest.raises(
        CheckpointError, match=r"from nobody/has-this.* base_model_name_or_path .*: write there"
    ):
        load_cpu(adapter)


def test_a_base_that_cannot_be_loaded_says_it_too(base, adapter):
    (base / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing.*base_model_name_or_path"):
        load_cpu(adapter)


@pytest.mark.parametrize("value", [".", "{adapter}", "../second"])
def test_adapters_in_a_circle(base, adapter, value):
    second = Path(shutil.copytree(adapter, adapter.parent / "second"))
    name_base(second, str(adapter))
    name_base(adapter, value.format(adapter=adapter))
    with pytest.raises(CheckpointError, match="an adapter on itself"):
        load_cpu(second)


def test_a_broken_configuration_is_named(adapter):
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=re.escape(f"The adapter in {adapter} names no base model (")):
        load_cpu(adapter)


# Tokens ---------------------------------------------------------------------------------------

NEW = ("<act>", "</act>", "<plan>")


@pytest.mark.parametrize(
    "settings",
    [
        {},  # resized embeddings, which peft saves beside the adapter
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"trainable_token_indices": {"embed_tokens": [55, 56, 57], "lm_head": [55, 56, 57]}},
    ],
    ids=["resized", "modules_to_save", "trainable_token_indices"],
)
def test_an_adapters_own_tokens_are_used(base, tmp_path, settings):
    assert len(load_codec(base).tokenizer) == 55
    adapter = foreign_adapter(tmp_path / "wide", base, NEW, **settings)
    state = torch.random.get_rng_state()
    policy = load_cpu(adapter)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert policy.codec.vocabulary_size == len(policy.codec.tokenizer) == 58
    tokenizers = (policy.codec.tokenizer, load_codec(adapter).tokenizer)
    assert [tokenizer.convert_tokens_to_ids("<plan>") for tokenizer in tokenizers] == [57, 57]
    assert torch.allclose(logits(policy.model, 57), torch.load(adapter / "logits.pt"), atol=1e-5)
    policy.merge()
    assert torch.allclose(logits(policy.model, 57), torch.load(adapter / "logits.pt"), atol=1e-5)
    policy.save(tmp_path / "merged")
    again = load_cpu(tmp_path / "merged")
    assert again.codec.tokenizer.convert_tokens_to_ids("<plan>") == 57
    assert torch.allclose(logits(again.model, 57), torch.load(adapter / "logits.pt"), atol=1e-5)


def test_tokens_without_embeddings_are_refused(base, tmp_path):
    adapter = foreign_adapter(tmp_path / "wide", base, NEW)
    path = adapter / "adapter_model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if "lora" in n}, path)
    with pytest.raises(CheckpointError, match=r"58 tokens, and the model with its adapter 55 embeddings"):
        load_cpu(adapter)


def test_without_a_tokenizer_of_its_own_an_adapter_has_its_bases(base, adapter):
    assert find_source(adapter).tokenizer == str(base)
    assert load_cpu(adapter).codec.encode("a b") == load_codec(base).encode("a b")


# Weights --------------------------------------------------------------------------------------


def test_an_adapter_file_must_fit_its_base(base, adapter, tmp_path):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({n: t for n, t in tensors.items() if n != name}, path)
    with pytest.raises(CheckpointError, match=f"does not fit .*Its file lacks {name}"):
        load_cpu(adapter)
    extra = name.replace("layers.0", "layers.7")
    save_file(tensors | {extra: tensors[name].clone()}, path)
    with pytest.raises(CheckpointError, match=f"has {extra} that no layer takes"):
        load_cpu(adapter)


def test_an_adapter_of_nan_is_refused(adapter):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    next(tensor for name, tensor in tensors.items() if "lora_A" in name).view(-1)[0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=f"from {adapter}: .*lora_A.* NaN or infinite"):
        load_cpu(adapter)


def test_a_pickled_adapter_is_read_as_tensors(base, adapter):
    path = adapter / "adapter_model.safetensors"
    torch.save(load_file(path), adapter / "adapter_model.bin")
    path.unlink()
    assert torch.allclose(logits(load_cpu(adapter).model, 54), torch.load(adapter / "logits.pt"), atol=1e-5)


def test_dropout_of_a_foreign_adapter_is_its_own(adapter):
    """Only the base model's is switched off; evaluation has none anyway."""
    policy = load_cpu(adapter, training=True)
    drops = [m.p for n, m in policy.model.named_modules() if isinstance(m, torch.nn.Dropout)]
    assert set(drops) == {0.5}
    assert json.loads((adapter / "adapter_config.json").read_text())["lora_dropout"] == 0.5
    assert torch.equal(logits(policy.model, 54), logits(policy.model, 54))


@pytest.mark.parametrize("name", ["x" * 5000, "é" * 200 + "/" + "é" * 200])
def test_a_base_that_no_file_can_be_called_is_named(adapter: Path, name: str) -> None:
    name_base(adapter, name)
    with pytest.raises(CheckpointError, match=r"adapter on '.*', which cannot be read \(File name too"):
        base_of(adapter)
