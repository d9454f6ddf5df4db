"""The forward pass over token trees and over KV caches, against the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro_rl.policy import packed
from repro_rl.policy.tree import build_tree
from support.models import network

VOCABULARY = 23
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
FAMILIES = {
    "qwen3": ("qwen3", {}),
    "qwen3 untied": ("qwen3", {"tie_word_embeddings": False}),
    "qwen3 biases": ("qwen3", {"attention_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen2 yarn": ("qwen2", {"rope_parameters": YARN}),
    "llama": ("llama", {}),
    "llama untied, all heads": ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "llama linear rope": ("llama", {"rope_parameters": LINEAR}),
    "llama three heads to a key head": (
        "llama",
        {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 24},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1], "use_sliding_window": False}),
}


def family(name, **more):
    kind, settings = FAMILIES[name]
    return network(kind, **settings, **more)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_gradients_are_the_models_own(name):
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
    assert not packed.packable(network().bfloat16())
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
