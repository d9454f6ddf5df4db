"""Attention over a token tree, against every row by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st

from repro_rl.policy.forward import tree_attention
from repro_rl.policy.forward.tree import TokenTree, build_tree
from repro_rl.policy.forward.tree_attention import causal_attention

HEADS, KV_HEADS, SIZE = 4, 2, 8


def states(tree: TokenTree) -> list[torch.Tensor]:
    """Queries, keys and values of all nodes."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(tree.token), heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def by_rows(tree: TokenTree, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What each row gives by itself, at the nodes that it owns."""
    out: list[torch.Tensor | None] = [None] * len(tree.token)
    for row, path in enumerate(tree.path):
        nodes = torch.from_numpy(path[: tree.length[row]])
        q, k, v = (x[nodes].transpose(0, 1) for x in (query, key, value))
        k, v = (x.repeat_interleave(HEADS // KV_HEADS, 0) for x in (k, v))
        scores = (q @ k.transpose(1, 2)) / SIZE**0.5
        future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        done = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        for position, node in enumerate(nodes.tolist()):
            if tree.owner[node] == row:
                out[node] = done[:, position].flatten()
    return torch.stack([x for x in out if x is not None])


@pytest.mark.parametrize("together", [True, False], ids=["padded", "row by row"])
@given(rows=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=7))
def test_every_node_attends_to_its_path(together: bool, rows: list[list[int]]) -> None:
    """Rows that repeat, that begin another one, and that share all, some or nothing."""
    tree = build_tree([np.array(row) for row in rows])
    parts = states(tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "PADDED_SCORES", 1 << 30 if together else 0)
        ours = causal_attention(tree)(*parts)
    theirs = by_rows(tree, *parts)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    pull = torch.randn_like(theirs)
    found, true = (torch.autograd.grad((out * pull).sum(), parts) for out in (ours, theirs))
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_shared_beginning_is_queried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight rows of 600 tokens that share 500: 600 queries, then 100 each. Short rows are one call."""
    asked = []

    def attend(query: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        asked.append((query.shape[0], query.shape[2]))
        return attention(query, *others, **more)

    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    begin = np.zeros(500, dtype=np.int64)
    rows = [np.concatenate([begin, np.full(100, i)]) for i in range(1, 9)]
    tree = build_tree(rows)
    causal_attention(tree)(*states(tree))
    assert asked == [(1, 600)] + [(1, 100)] * 7
    asked.clear()
    short = build_tree([row[480:520] for row in rows])
    causal_attention(short)(*states(short))
    assert asked == [(8, 40)]
