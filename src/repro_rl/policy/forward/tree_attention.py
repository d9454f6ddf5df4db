"""Attention over a token tree: every node attends to those on its path.

A row of the tree is one call, because each has keys of its own; several short ones are padded to one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from repro_rl.policy.forward.tree import TokenTree

# Scores of a head. A call for a row of its own costs about as much as SCORES_OF_A_CALL of them.
PADDED_SCORES = 1 << 19  # saved, from which rows are attended to one by one
SCORES_OF_A_CALL = 1 << 14

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """[B, heads, T, D] over keys and values [B, kv_heads, W, D]; causal (T = W) without a mask [B, 1, T, W].

    The result is [B, T, heads, D].
    """
    out = F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2)


def gather(values: torch.Tensor, index: torch.Tensor, rows: int) -> torch.Tensor:
    """[rows, heads, W, D] from [N, heads, D] by flat ``index`` [rows * W]."""
    picked = values.flatten(1).index_select(0, index)
    return picked.view(rows, -1, *values.shape[1:]).transpose(1, 2)


@dataclass(slots=True, frozen=True)
class RowAttention:
    """The attention of the nodes that one row adds to a tree."""

    path: torch.Tensor  # [W] nodes of the row
    own: int  # how many of the last ones are the row's own
    mask: torch.Tensor | None  # [own, W] what these see; None: all nodes are queries, and causal

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """[own, heads * D] from the queries, keys and values [N, heads, D] of all nodes."""
        q = gather(query, self.path if self.mask is None else self.path[-self.own :], 1)
        k, v = gather(key, self.path, 1), gather(value, self.path, 1)
        return attend(q, k, v, self.mask)[0, -self.own :].flatten(1)


def row_attention(path: NDArray[np.int64], own: int, whole: bool) -> RowAttention:
    """Of a row [W] whose last ``own`` nodes are its own; ``whole``: the others are queries, too."""
    width = len(path)
    mask = None if whole else torch.ones(own, width, dtype=torch.bool).tril(width - own)
    return RowAttention(torch.from_numpy(path), own, mask)


def causal_attention(tree: TokenTree) -> Attention:
    """Attention [N, heads * D] of the queries, keys and values [N, heads, D] of all nodes of a tree.

    Rows are padded to one width. Where more is saved than the calls cost, each row is attended to by itself.
    It has the keys of its whole path and the queries of its own nodes. So a shared beginning is computed
    once.
    """
    rows, width = tree.path.shape
    own = np.bincount(tree.owner, minlength=rows)  # the last nodes of a row's path: the others come before it
    # Where more than two thirds are its own, the causal kernel over the whole row is faster (measured).
    whole = 3 * own > 2 * tree.length
    squares = tree.length**2
    scores = np.where(whole, squares, own * tree.length)
    padding, saved = (rows * width**2 - int(total.sum()) for total in (squares, scores))
    if padding < PADDED_SCORES and saved < max(PADDED_SCORES, rows * SCORES_OF_A_CALL):
        return _padded_attention(tree)
    # Nodes are numbered owner by owner, so the results are in their order.
    owners = tree.owner[np.flatnonzero(np.diff(tree.owner, prepend=-1))]
    calls = [
        row_attention(tree.path[row, : tree.length[row]], int(own[row]), bool(whole[row])) for row in owners
    ]
    return lambda query, key, value: torch.cat([call(query, key, value) for call in calls])


def _padded_attention(tree: TokenTree) -> Attention:
    """All rows in one call, each with all nodes of its path as queries."""
    rows, width = tree.path.shape
    path = torch.from_numpy(tree.path).reshape(-1)
    own = torch.from_numpy(tree.owner * width + tree.depth)

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        q, k, v = (gather(values, path, rows) for values in (query, key, value))
        return attend(q, k, v, None).flatten(0, 1).flatten(1).index_select(0, own)

    return attention


def last_layer_attention(tree: TokenTree, nodes: NDArray[np.int64]) -> Attention:
    """Attention [S, heads * D] of the queries of ``nodes`` [S] alone over the keys and values of all nodes.

    Nodes with the same owner are queries of one row, so its keys are gathered once.
    """
    owners, block, counts = np.unique(tree.owner[nodes], return_inverse=True, return_counts=True)
    column = np.zeros(len(nodes), dtype=np.int64)  # index of a node among those of its owner
    by_owner = np.argsort(block, kind="stable")
    column[by_owner] = np.arange(len(nodes)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = len(owners), int(counts.max())
    width = int(tree.depth[nodes].max()) + 1
    index, depth = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    index[block, column] = np.arange(len(nodes))  # an empty cell repeats the first query and is dropped
    depth[block, column] = tree.depth[nodes]
    mask = torch.from_numpy(np.arange(width) <= depth[:, :, None])[:, None]
    path = torch.from_numpy(np.ascontiguousarray(tree.path[owners, :width])).reshape(-1)
    queries, cell = torch.from_numpy(index).reshape(-1), torch.from_numpy(block * shape[1] + column)

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        count = len(owners)
        parts = gather(query, queries, count), gather(key, path, count), gather(value, path, count)
        return attend(*parts, mask).reshape(count * shape[1], -1).index_select(0, cell)

    return attention
