"""The forward pass over token trees and over KV caches, against the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro_rl.config import LoraSection
from repro_rl.policy.forward import packed, tree_attention
from repro_rl.policy.forward.tree import build_tree
from repro_rl.policy.loading import lora
from repro_rl.policy.model.adapter import AdapterOff
from support.models import FAMILIES, family, network

VOCABULARY = 23


@pytest.mark.parametrize("padded", [1 << 30, 1], ids=["rows-padded", "row-by-row"])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_gradients_are_the_models_own(name, padded, monkeypatch):
    monkeypatch.setattr(tree_attention, "PADDED_SCORES", padded)
    model = family(name)
    assert packed.packable(model)
    rng = np.random.default_rng(0)
    starts = [rng.integers(VOCABULARY, size=n) for n in (1, 5, 9)]
    rows = [np.concatenate([starts[i % 3], rng.integers(3, size=1 + i % 6)]) for i in range(40)]
    tree = build_tree(rows)
    nodes = rng.permutation(len(tree.token))[: len(tree.token) // 2]
    pull = torch.randn(len(nodes), VOCABULARY)
    ours = packed.forward(model, tree, nodes)
    (ours * pull).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total = torch.zeros(())
    for i, node in enumerate(nodes):
        ids = torch.from_numpy(rows[tree.owner[node]][: tree.depth[node] + 1].copy())
        logits = model(input_ids=ids[None], use_cache=False).logits[0, -1]
        assert torch.allclose(ours[i], logits, atol=2e-5)
        total = total + (logits * pull[i]).sum()
    total.backward()
    for name, parameter in model.named_parameters():
        scale = float(parameter.grad.abs().max())
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-5 * max(scale, 1)), name


def test_what_cannot_be_packed():
    model = network()
    assert packed.packable(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert not packed.packable(model)
    assert not packed.packable(torch.nn.Linear(2, 2))
    assert not packed.packable(network(hidden_act="gelu"))
    assert not packed.packable(network(attention_dropout=0.1))
    assert not packed.packable(network(use_sliding_window=True, sliding_window=4, max_window_layers=1))
    assert not packed.packable(
        network(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    )
    assert not packed.packable(network().half())
    mixed = network()
    mixed.lm_head.bfloat16()
    assert not packed.packable(mixed)
    assert not packed.packable(network("llama", hidden_act="gelu"))
    assert not packed.packable(network("mistral", sliding_window=4))
    assert not packed.packable(
        network("smollm3", use_sliding_window=True, sliding_window=4, no_rope_layers=[1, 0, 1])
    )
    other = network(seed=1)
    assert packed.use_packed(True, model, other)
    assert not packed.use_packed(False, model)
    model.gradient_checkpointing_enable()
    assert not packed.packable(model)
    assert not packed.use_packed(True, other, model)  # all of them, or none


@pytest.mark.parametrize("name", ["qwen3", "qwen2", "llama", "smollm3"])
@torch.no_grad()
def test_in_bfloat16_it_is_as_near_to_float32_as_the_model_is(name):
    """Both round after every operation, not always alike: neither is nearer on the whole."""
    exact, model = family(name), family(name).bfloat16()
    assert packed.packable(model)
    ids = np.random.default_rng(0).integers(VOCABULARY, size=(20, 12))
    tree = build_tree(list(ids))
    ours = packed.forward(model, tree, tree.ends())
    assert ours.dtype == torch.bfloat16
    theirs = model(input_ids=torch.from_numpy(ids), use_cache=False).logits[:, -1]
    true = exact(input_ids=torch.from_numpy(ids), use_cache=False).logits[:, -1]
    ours, theirs = (ours - true).abs(), (theirs - true).abs()
    assert float(ours.mean()) < 1.2 * float(theirs.mean())
    assert float(ours.max()) < 3 * float(theirs.max())  # one value of thousands; processors round apart


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_an_adapter_is_part_of_the_pass(kind):
    """On, off as the reference, and its gradients."""
    settings = LoraSection(rank=2)
    model = lora.attach(network(kind), settings, "base", seed=0)
    with torch.no_grad():  # B starts at zero
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    off = AdapterOff(model)
    assert packed.use_packed(True, model, off)
    ids = np.random.default_rng(0).integers(VOCABULARY, size=(6, 9))
    ids[3:, :5] = ids[:3, :5]
    tree = build_tree(list(ids))
    everything = torch.from_numpy(ids)
    ours = packed.forward(model, tree, tree.ends())
    ours.square().sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in gradients)
    model.zero_grad()
    theirs = model(input_ids=everything, use_cache=False).logits[:, -1]
    theirs.square().sum().backward()
    assert torch.allclose(ours, theirs, atol=2e-5)
    for name, parameter in model.named_parameters():
        if name in gradients:
            scale = max(float(parameter.grad.abs().max()), 1)
            assert torch.allclose(gradients[name], parameter.grad, atol=1e-5 * scale), name
    with torch.no_grad():
        without = packed.forward(off, tree, tree.ends())
        assert torch.allclose(without, off(input_ids=everything, use_cache=False).logits[:, -1], atol=2e-5)
        assert not torch.allclose(without, ours, atol=1e-2)


def test_an_adapter_with_dropout_is_not_packed():
    assert not packed.packable(lora.attach(network(), LoraSection(rank=2, dropout=0.1), "base", seed=0))


def test_a_padding_token_that_is_read_has_its_gradient():
    """The model's own pass leaves it out; but SmolLM2, for one, pads with its end of turn."""
    settings = {"tie_word_embeddings": False}
    with_padding, without = (network("llama", pad_token_id=pad, **settings) for pad in (3, None))
    without.load_state_dict(with_padding.state_dict())
    tree = build_tree([np.array([1, 3, 2])])
    packed.forward(with_padding, tree, tree.ends()).sum().backward()
    without(input_ids=torch.tensor([[1, 3, 2]]), use_cache=False).logits[0, -1].sum().backward()
    ours, theirs = (model.model.embed_tokens.weight.grad for model in (with_padding, without))
    largest = float(theirs[3].abs().max())
    assert largest > 0
    assert torch.allclose(ours, theirs, atol=1e-5 * max(largest, 1))


def test_logits_in_blocks_of_columns_are_the_same(monkeypatch):
    model = network("llama", vocabulary=100)
    states = torch.randn(5, 32)
    with torch.no_grad():
        whole = packed.last_logits(model, states)
        monkeypatch.setattr(packed, "BLOCKED_HEAD_MIN_VOCABULARY", 50)
        monkeypatch.setattr(packed, "HEAD_BLOCK_COLUMNS", 7)
        assert torch.allclose(packed.last_logits(model, states), whole, atol=1e-6)


class Appended:
    """A layer's KV cache that grows by what it is given."""

    def __init__(self):
        self.keys = self.values = None

    def update(self, key_states, value_states):
        if self.keys is not None:
            key_states = torch.cat([self.keys, key_states], dim=2)
            value_states = torch.cat([self.values, value_states], dim=2)
        self.keys, self.values = key_states, value_states
        return key_states, value_states


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_extending_a_cache_gives_the_logits_of_the_whole_sequence(name):
    model = family(name)
    ids = torch.from_numpy(np.random.default_rng(0).integers(VOCABULARY, size=(4, 12)))
    cache = [Appended() for _ in model.model.layers]
    start = 0
    for size in (5, 1, 1, 4, 1):
        stop = start + size
        position = torch.arange(start, stop).expand(4, size)
        mask = torch.zeros(4, 1, size, stop)
        mask.masked_fill_(torch.arange(stop) > position[:, None, :, None], -torch.inf)
        rows = torch.tensor([2, 0]) if size == 4 else None
        logits = packed.extend(
            model, cache, ids[:, start:stop], packed.rotary_embedding(model, position), mask, rows
        )
        whole = model(input_ids=ids[:, :stop], use_cache=False).logits[:, -1]
        assert torch.allclose(logits, whole if rows is None else whole[rows], atol=2e-5)
        start = stop


def test_the_rotary_table_holds_every_position():
    model = network()
    cos, sin = packed.rotary_table(model, 9)
    one, two = packed.rotary_embedding(model, torch.tensor([[8, 3], [0, 5]]))
    order = torch.tensor([8, 3, 0, 5])
    assert torch.equal(cos[order], one)
    assert torch.equal(sin[order], two)
