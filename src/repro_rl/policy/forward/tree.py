"""Many token sequences as one tree: a prefix that sequences share is there once.

What a causal model computes at a token depends on the tokens before it and on nothing else. So equal prefixes
have equal activations, keys, values and gradients' paths. In grouped agent rollouts most tokens are such
prefixes: the same instructions, the same task, the same state met again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, frozen=True)
class TokenTree:
    """The distinct prefixes of R sequences, N of them, the longest sequence W tokens long.

    Node n is the prefix that ends with ``token[n]`` at position ``depth[n]``. Row r of ``path`` names the
    nodes of sequence r from its first token on; beyond its ``length`` it holds some valid node. The nodes
    that a row owns are the last ones of its path, and are numbered one after another.
    """

    token: NDArray[np.int64]  # [N]
    depth: NDArray[np.int64]  # [N]
    path: NDArray[np.int64]  # [R, W]
    length: NDArray[np.int64]  # [R]
    owner: NDArray[np.int64]  # [N] a row whose path holds the node

    def ends(self) -> NDArray[np.int64]:
        """The last node of every sequence [R]."""
        return self.path[np.arange(len(self.path)), self.length - 1]


def build_tree(rows: Sequence[NDArray[np.int64]]) -> TokenTree:
    """The tree of ``rows``, each [L] with at least one token. Sequences may occur more than once."""
    count = len(rows)
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=count)
    width = int(lengths.max())
    # Equal beginnings stay together in the order of the bytes, whatever order of the tokens that is.
    order = np.array(sorted(range(count), key=[row.tobytes() for row in rows].__getitem__), dtype=np.int64)
    length = lengths[order]
    inside = np.arange(width) < length[:, None]  # [R, W]
    table = np.full((count, width), -1, dtype=np.int64)
    table[inside] = np.concatenate([rows[i] for i in order])
    shared = np.zeros((count, width), dtype=np.bool_)
    np.logical_and.accumulate(table[1:] == table[:-1], axis=1, out=shared[1:])
    fresh = inside & ~shared
    sorted_owner, depth = np.nonzero(fresh)
    path = np.zeros((count, width), dtype=np.int64)
    path[fresh] = np.arange(len(depth))
    # A shared cell is the node of the row above, and nodes are numbered from the top.
    np.maximum.accumulate(path, axis=0, out=path)
    back = np.empty_like(order)
    back[order] = np.arange(count)
    return TokenTree(
        token=table[fresh], depth=depth, path=path[back], length=lengths, owner=order[sorted_owner]
    )
