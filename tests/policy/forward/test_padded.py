"""Logits of padded rows: at chosen columns, and of chosen tokens alone."""

from __future__ import annotations

import pytest
import torch

from repro_rl.config import LoraSection
from repro_rl.policy.forward import padded
from repro_rl.policy.loading import lora
from repro_rl.policy.model.adapter import AdapterOff
from support.architectures import FAMILIES, build, tokenizer

BY_NAME = {family.name: family for family in FAMILIES}


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def test_logits_of_code_that_ignores_logits_to_keep(words):
    model = build(BY_NAME["Llama"], len(words))
    ids, columns = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([1, 3])
    kept = padded.logits_at(model, ids, columns)
    inner = model.forward
    model.forward = lambda logits_to_keep=None, **inputs: inner(**inputs)
    assert torch.allclose(padded.logits_at(model, ids, columns), kept, atol=1e-6)
    assert kept.shape == (1, 2, len(words))


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Gemma 2"])
def test_logits_of_chosen_tokens_alone(words, name):
    """The output layer sees no other states; values and gradients are those of the whole table."""
    model = build(BY_NAME[name], len(words))
    ids = torch.tensor([[5, 6, 7, 8, 9], [6, 7, 5, 9, 8]])
    columns = torch.tensor([0, 1, 3])
    row, column = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 0])
    sizes, gradients, found = [], [], []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda layer, inputs, output: sizes.append(tuple(output.shape[:-1]))
    )
    for logits in (
        padded.logits_at(model, ids, columns)[row, column],
        padded.logits_of(model, ids, columns, row, column),
    ):
        found.append(logits)
        model.zero_grad()
        torch.log_softmax(logits, -1)[:, 5].sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    hook.remove()
    assert sizes == [(2, 3), (1, 3)]
    assert found[1].shape == (3, len(words))
    assert torch.allclose(*found, atol=1e-6)
    assert gradients[0]
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    inner = model.forward  # code that ignores logits_to_keep: all states reach the output layer
    model.forward = lambda logits_to_keep=None, **inputs: inner(**inputs)
    assert torch.allclose(padded.logits_of(model, ids, columns, row, column), found[0], atol=1e-6)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_chosen_tokens_with_an_adapter_on_and_off(words):
    model = lora.attach(build(BY_NAME["Llama"], len(words)), LoraSection(rank=2), "base", 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    ids, columns = torch.tensor([[5, 6, 7, 8, 9], [6, 7, 5, 9, 8]]), torch.tensor([0, 1, 3])
    row, column = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 0])
    found, sizes = [], []
    model.get_output_embeddings().register_forward_hook(
        lambda layer, inputs, output: sizes.append(tuple(output.shape[:-1]))
    )
    for one in (model, AdapterOff(model)):
        found.append(padded.logits_of(one, ids, columns, row, column))
        expected = padded.logits_at(one, ids, columns)[row, column]
        assert torch.allclose(found[-1], expected, atol=1e-6)
    assert sizes == [(1, 3), (2, 3)] * 2
    assert not torch.allclose(*found, atol=1e-3)
