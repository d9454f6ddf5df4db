"""A KV cache of rows that are allocated ahead and written in place, one conversation or answer each.

A row is left-aligned: its column j belongs to its token j. ``kv_slots`` and ``static.cache`` say how many
rows and columns are allocated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, CacheLayerMixin

from repro_rl.types import Ids


@dataclass(slots=True)
class RowPass:
    """What the forward pass under way writes and sees: R rows, Q tokens each; shared by all layers.

    Layers know nothing else of their cache: a reference to it would keep their memory until a collection.
    """

    rows: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # [R]
    columns: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.int64))  # [R, Q]
    width: int = 0  # columns that queries may see
    first: int | None = None  # the rows are first..first+R-1: what they hold is a view, not a copy
    shape: tuple[int, int] = (0, 0)  # rows and columns allocated in every layer
    dtype: torch.dtype | None = None  # of keys and values; None: as the model computes them

    def mask(self, dtype: torch.dtype) -> torch.Tensor:
        """[R, 1, Q, width] added to the scores: a query at column c sees the columns up to c of its row.

        A mask of booleans would be turned into this one by every layer.
        """
        unseen = torch.arange(self.width, device=self.columns.device) > self.columns[:, None, :, None]
        mask = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device)
        return mask.masked_fill_(unseen, torch.finfo(dtype).min)


class RowLayer(CacheLayerMixin):
    """Keys and values of one layer, [rows, kv_heads, columns, D] each."""

    def __init__(self, now: RowPass):
        super().__init__()
        self.now = now

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """See CacheLayerMixin: heads and D are those of the first states."""
        rows, columns = self.now.shape
        self.keys, self.values = (
            states.new_zeros(
                rows, states.shape[1], columns, states.shape[3], dtype=self.now.dtype or states.dtype
            )
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states [R, kv_heads, Q, D]; return what the queries may see, [R, kv_heads, width, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        now = self.now
        seen = []
        for stored, new in ((self.keys, key_states), (self.values, value_states)):
            assert stored is not None
            stored[now.rows[:, None], :, now.columns] = new.transpose(1, 2).to(stored.dtype)
            part = stored[:, :, : now.width]
            seen.append(part[now.rows] if now.first is None else part[now.first : now.first + len(now.rows)])
        return seen[0], seen[1]

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """See CacheLayerMixin: keys that a query may see, and the first of them."""
        return self.now.width, 0

    def get_seq_length(self, *_: Any) -> int:
        """See CacheLayerMixin: tokens before those of the pass."""
        return self.now.width - self.now.columns.shape[1]

    def get_max_length(self) -> int:
        """See CacheLayerMixin: no limit."""
        return -1

    def resize(self) -> None:
        """Take the cache's shape, no smaller than now, and keep what is there."""
        rows, columns = self.now.shape
        if self.keys is not None:
            self.keys = enlarged(self.keys, rows, columns)
        if self.values is not None:
            self.values = enlarged(self.values, rows, columns)

    def copy(self, old: torch.Tensor, new: torch.Tensor, width: int) -> None:
        """Copy the first ``width`` columns of the rows ``old`` [N] to the rows ``new`` [N]."""
        for stored in (self.keys, self.values):
            if stored is not None:
                stored[new, :, :width] = stored[old, :, :width]


class RowCache:
    """The buffers of all layers. ``dtype``: of keys and values; None: as the model computes them.

    ``shape``: rows and columns to allocate at first. ``layers`` serve ``packed.extend``, ``tensors`` a model
    of transformers.
    """

    def __init__(self, layers: int, dtype: torch.dtype | None = None, shape: tuple[int, int] = (0, 0)):
        self.now = RowPass(shape=shape, dtype=dtype)
        self.layers = [RowLayer(self.now) for _ in range(layers)]
        self.tensors = Cache(layers=list(self.layers))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every layer."""
        return self.now.shape

    def resize(self, rows: int, columns: int) -> bool:
        """Allocate ``rows`` and ``columns``, no fewer than now. Whether the buffers moved."""
        if (rows, columns) == self.shape:
            return False
        self.now.shape = (rows, columns)
        for layer in self.layers:
            layer.resize()
        return True

    def copy(self, pairs: Sequence[tuple[int, int]], width: int, device: torch.device) -> None:
        """Copy the first ``width`` columns of rows, by (old, new)."""
        if pairs:
            old, new = torch.tensor(pairs, device=device).T
            for layer in self.layers:
                layer.copy(old, new, width)

    def bytes(self) -> int:
        """Memory of all buffers."""
        stored = (tensor for layer in self.layers for tensor in (layer.keys, layer.values))
        return sum(tensor.numel() * tensor.element_size() for tensor in stored if tensor is not None)


def left_padded(
    rows: Sequence[int], blocks: Mapping[int, Ids], lengths: Sequence[int], pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and columns [R, Q] of a pass that appends ``blocks`` to their rows; Q is the longest block's size.

    ``lengths``: tokens of every row of the cache. Padding is written behind the end of its row; a row without
    a block appends padding alone.
    """
    size = max(map(len, blocks.values()))
    ids = np.full((len(rows), size), pad_id, dtype=np.int64)
    columns = np.empty((len(rows), size), dtype=np.int64)
    for index, row in enumerate(rows):
        block, length = blocks.get(row, ()), lengths[row]
        gap, end = size - len(block), length + len(block)
        ids[index, gap:] = block
        columns[index, gap:] = np.arange(length, end)
        columns[index, :gap] = np.arange(end, length + size)
    return ids, columns


def enlarged(old: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """[rows, heads, columns, D] with what ``old`` [R, heads, C, D] holds, and zeros in the rest."""
    new = old.new_zeros(rows, old.shape[1], columns, old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new
