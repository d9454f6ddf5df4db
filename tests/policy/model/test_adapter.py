"""A model's adapter: asked of adapted models, of plain ones, and without peft."""

from __future__ import annotations

import sys

import pytest
import torch

from repro_rl.config import LoraSection
from repro_rl.policy.loading.lora import attach
from repro_rl.policy.model.adapter import AdapterOff, adapter_active, base_model, has_adapter
from support.models import load_cpu


def test_a_model_without_an_adapter_is_its_own_base(tiny_folder, monkeypatch):
    model = load_cpu(tiny_folder).model
    for _ in range(2):
        assert base_model(model) is model
        assert not has_adapter(model)
        assert not adapter_active(model)
        monkeypatch.delitem(sys.modules, "peft", raising=False)  # nothing is imported to ask


def test_an_adapter_is_told_from_its_base_and_whether_it_is_on(tiny_folder):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    model = load_cpu(tiny_folder).model
    adapted = attach(model, LoraSection(rank=2), tiny_folder, 0)
    assert has_adapter(adapted)
    assert base_model(adapted) is model
    assert adapter_active(adapted)
    with adapted.disable_adapter():
        assert has_adapter(adapted)
        assert not adapter_active(adapted)
    assert adapter_active(adapted)


def test_off_is_a_callable_with_the_models_output_layer(tiny_folder):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    ids = torch.tensor([[5, 6, 7]])
    model = load_cpu(tiny_folder).model
    with torch.no_grad():
        before = model(input_ids=ids).logits
        adapted = attach(model, LoraSection(rank=2), tiny_folder, 0)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
        off = AdapterOff(adapted)
        assert torch.equal(off(input_ids=ids).logits, before)
        assert not torch.equal(adapted(input_ids=ids).logits, before)
    assert off.get_output_embeddings() is model.get_output_embeddings()
