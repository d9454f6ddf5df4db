"""The objective over token trees: the same loss and gradient as over padded rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from repro_rl.config import KlSection
from repro_rl.policy.forward.tree import build_tree
from repro_rl.train.batch import Collation, Row, TreeInputs, split_rows, split_tree
from repro_rl.train.loss import LossSettings, imitation_loss, policy_loss, reference_values
from repro_rl.types import TokenKind
from support.models import network

VOCABULARY = 23
CPU = torch.device("cpu")
PADDED, TREE = Collation(0, CPU), Collation(0, CPU, as_tree=True)
ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=12)


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
                    kind=np.where(trained, TokenKind.ACT, TokenKind.CONTEXT).astype(np.int8),
                    positive=np.abs(signed[0]),
                    negative=-np.abs(signed[1]),
                    n_positive=trained.astype(np.int32),
                    n_negative=trained.astype(np.int32),
                    logprob=(rng.normal(-3, 1, size=len(ids)) * trained).astype(np.float32),
                    count=int(rng.integers(1, 4)),
                )
            )
    return rows


@pytest.mark.parametrize("form", ["exact", "k3", "none"])
@pytest.mark.parametrize("entropy", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_the_objective_is_the_same_over_a_tree(kind, form, entropy):
    model, reference = network(kind, seed=0), network(kind, seed=1)
    how = LossSettings(
        clip=0.2, kl=KlSection(form=form, coef=0.5, clamp=3.0), entropy_coef=entropy, temperature=0.8
    )
    results = []
    for collation in (TREE, PADDED):
        model.zero_grad()
        batch = collation.collate(rows_of(), {TokenKind.ACT: 0.05})
        assert isinstance(batch.inputs, TreeInputs) == collation.as_tree
        if form != "none":
            with torch.no_grad():
                batch = replace(batch, reference=reference_values(reference, batch, form, 0.8))
        terms = policy_loss(model, batch, how)
        (terms.total + imitation_loss(model, batch)).backward()
        results.append((terms, [p.grad.clone() for p in model.parameters()]))
    (tree, ours), (plain, theirs) = results
    for name in ("policy_loss", "kl", "entropy", "clipped", "mismatch", "tokens"):
        assert getattr(tree, name) == pytest.approx(getattr(plain, name), rel=1e-4), name
    assert (plain.kl != 0) == (form != "none")
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("collation", [TREE, PADDED])
def test_a_batch_that_trains_nothing_is_harmless(collation):
    rows = rows_of()[:2]
    for row in rows:
        row.kind[:] = TokenKind.CONTEXT
    batch = collation.collate(rows, {TokenKind.ACT: 1.0})
    assert float(imitation_loss(network(), batch).detach()) == 0


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(1, 30))
def test_split_tree_bounds_the_nodes(rows, limit):
    zeros, none = np.zeros(9, np.float32), np.zeros(9, np.int32)
    made = [
        Row(np.array(ids, dtype=np.int64), zeros.astype(np.int8), zeros, zeros, none, none, zeros, 1)
        for ids in rows
    ]
    batches = split_tree(made, limit)
    assert sorted(id(row) for batch in batches for row in batch) == sorted(map(id, made))
    for batch in batches:
        nodes = len(build_tree([row.ids for row in batch]).token)
        assert len(batch) == 1 or nodes <= limit
    assert len(batches) <= len(split_rows(made, limit)) or max(map(len, rows)) > min(map(len, rows))
