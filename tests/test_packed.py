"""Token trees, and the forward pass over them against the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from repro_rl.policy import SamplingSettings, TransformersPolicy, packed
from repro_rl.policy.tree import build_tree
from repro_rl.random_streams import name_key
from repro_rl.train.batch import Row, collate, split_rows, split_tree
from repro_rl.train.loss import imitation_loss, policy_loss, reference_values

CPU = torch.device("cpu")
VOCABULARY = 23
ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=12)


def network(kind="qwen3", seed=0, **more):
    """Two or more layers, two query heads to a key head, logits far from flat."""
    config = {"qwen3": Qwen3Config, "qwen2": Qwen2Config}[kind](
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
        **{"head_dim": 8, "tie_word_embeddings": True} | more,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = {"qwen3": Qwen3ForCausalLM, "qwen2": Qwen2ForCausalLM}[kind](config).eval()
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide a mistake
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def arrays(rows):
    return [np.array(row, dtype=np.int64) for row in rows]


def test_tree_by_hand():
    tree = build_tree(arrays([[5, 6, 7], [5, 6], [5, 8], [9], [5, 6, 7]]))
    assert len(tree.token) == 5  # 5, 5-6, 5-6-7, 5-8, 9
    assert sorted(zip(tree.depth.tolist(), tree.token.tolist(), strict=True)) == [
        (0, 5), (0, 9), (1, 6), (1, 8), (2, 7)
    ]  # fmt: skip
    assert tree.path[0, :2].tolist() == tree.path[1, :2].tolist()
    assert tree.path[0, 0] == tree.path[2, 0]
    assert tree.ends()[0] == tree.ends()[4]


@settings(deadline=None)
@given(ROWS)
def test_a_tree_has_each_prefix_once(rows):
    tree = build_tree(arrays(rows))
    assert len(tree.token) == len({tuple(row[:i]) for row in rows for i in range(1, len(row) + 1)})
    for r, row in enumerate(rows):
        nodes = tree.path[r, : len(row)]
        assert tree.token[nodes].tolist() == row
        assert tree.depth[nodes].tolist() == list(range(len(row)))
        # an owner's path runs through the node from its first token on
        for node in nodes:
            own = tree.path[tree.owner[node], : tree.depth[node] + 1]
            assert own.tolist() == nodes[: len(own)].tolist()
    assert 0 <= tree.path.min() <= tree.path.max() < len(tree.token)


@pytest.mark.parametrize("kind", ["qwen3", "qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_and_gradients_are_the_models_own(kind, tied):
    model = network(kind, tie_word_embeddings=tied)
    assert packed.packable(model)
    rng = np.random.default_rng(0)
    starts = [rng.integers(VOCABULARY, size=n) for n in (1, 5, 9)]
    rows = [np.concatenate([starts[i % 3], rng.integers(3, size=1 + i % 6)]) for i in range(40)]
    tree = build_tree(rows)
    wanted = rng.permutation(len(tree.token))[: len(tree.token) // 2]
    pull = torch.randn(len(wanted), VOCABULARY)
    ours = packed.forward(model, tree, wanted)
    (ours * pull).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total = torch.zeros(())
    for i, node in enumerate(wanted):
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
        network(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    )
    assert not packed.packable(network().bfloat16())
    model.gradient_checkpointing_enable()
    assert not packed.packable(model)


def rows_of(seed=0):
    """Prompts with several answers each, and answers that begin alike; advantages of both signs."""
    rng = np.random.default_rng(seed)
    rows = []
    for prompt in (rng.integers(VOCABULARY, size=n) for n in (2, 4, 4, 7)):
        for answer in ([1], [1, 2], [1, 3, 2], [4, 5]):
            ids = np.array([*prompt, *answer], dtype=np.int64)
            trained = np.arange(len(ids)) >= len(prompt)
            signed = [rng.normal(size=len(ids)).astype(np.float32) * trained for _ in range(2)]
            rows.append(
                Row(
                    ids=ids,
                    trained=trained,
                    positive=np.abs(signed[0]),
                    negative=-np.abs(signed[1]),
                    logprob=(rng.normal(-3, 1, size=len(ids)) * trained).astype(np.float32),
                    count=int(rng.integers(1, 4)),
                    kind="forward",
                )
            )
    return rows


@pytest.mark.parametrize("form", ["exact", "k3", "none"])
@pytest.mark.parametrize("entropy", [0.0, 0.1])
def test_the_objective_is_the_same_over_a_tree(form, entropy):
    model, reference = network(seed=0), network(seed=1)
    results = []
    for use_packed in (True, False):
        model.zero_grad()
        batch = collate(rows_of(), {"forward": 0.05}, 0, CPU)
        if form != "none":
            with torch.no_grad():
                batch.reference = reference_values(reference, batch, form, 0.8, use_packed)
        terms = policy_loss(
            model, batch, clip=0.2, kl_form=form, kl_coef=0.5, kl_clamp=3.0, entropy_coef=entropy,
            temperature=0.8, use_packed=use_packed,
        )  # fmt: skip
        (terms.total + imitation_loss(model, batch, use_packed)).backward()
        assert (batch.forest is not None) == use_packed
        results.append((terms, [p.grad.clone() for p in model.parameters()]))
    (tree, ours), (plain, theirs) = results
    for name in ("policy", "kl", "entropy", "clipped", "mismatch", "tokens"):
        assert getattr(tree, name) == pytest.approx(getattr(plain, name), rel=1e-4), name
    assert (plain.kl != 0) == (form != "none")
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * float(other.abs().max()))


def test_a_batch_that_trains_nothing_is_harmless():
    rows = rows_of()[:2]
    for row in rows:
        row.trained[:] = False
    batch = collate(rows, {"forward": 1.0}, 0, CPU)
    assert float(imitation_loss(network(), batch).detach()) == 0


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(1, 30))
def test_split_tree_bounds_the_nodes(rows, limit):
    zeros = np.zeros(9, np.float32)
    made = [Row(ids, zeros > 1, zeros, zeros, zeros, 1, "forward") for ids in arrays(rows)]
    batches = split_tree(made, limit)
    assert sorted(id(row) for batch in batches for row in batch) == sorted(map(id, made))
    for batch in batches:
        nodes = len(build_tree([row.ids for row in batch]).token)
        assert len(batch) == 1 or nodes <= limit
    assert len(batches) <= len(split_rows(made, limit)) or max(map(len, rows)) > min(map(len, rows))


def test_long_answers_that_end_at_different_times(tiny_folder):
    """Rows leave one by one, stay for a while as dead ones, and are removed: the texts are the hub's."""
    policies = [TransformersPolicy.load(tiny_folder, device="cpu", packed=how) for how in (True, False)]
    prompts = [" ".join("abcdefgh"[: 1 + i % 8]) for i in range(60)]
    keys = np.array([name_key("long", i) for i in range(60)], dtype=np.uint64)
    ours, theirs = (p.generate(prompts, keys, SamplingSettings(40, temperature=1.5)) for p in policies)
    lengths = {len(c.token_ids) for c in ours}
    assert len(lengths) > 10
    for one, other in zip(ours, theirs, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.entropy == pytest.approx(other.entropy, abs=1e-5)
