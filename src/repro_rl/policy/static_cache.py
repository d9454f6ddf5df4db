"""A KV cache at fixed addresses: what CUDA graphs of decode steps read and write.

A row is left-aligned: its column j belongs to its token j. Rows and columns are allocated ahead, in sizes
from short lists, so that few different shapes (and so few graphs) occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from repro_rl.policy.kv_slots import enlarged

FIRST_WIDTH = 128  # fewest columns
ROW_STEPS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96)  # rows allocated; multiples of 64 beyond


def width_bucket(columns: int) -> int:
    """The least of 128, 192, 256, 384, 512, 768, ... that holds ``columns``."""
    size = FIRST_WIDTH
    while size < columns:
        if size * 3 // 2 >= columns:
            return size * 3 // 2
        size *= 2
    return size


def row_bucket(rows: int) -> int:
    """The least size in ``ROW_STEPS``, or multiple of 64, that holds ``rows``."""
    return next((size for size in ROW_STEPS if size >= rows), -(-rows // 64) * 64)


def bucket_cells(rows: int, columns: int) -> int:
    """Cells (rows x columns) that are allocated for so many."""
    return row_bucket(rows) * width_bucket(columns)


def fitting_rows(cells: int, columns: int) -> int:
    """The most rows of so many ``columns`` that are allocated in at most ``cells`` cells; at least one."""
    most = max(1, cells // width_bucket(columns))
    return most // 64 * 64 if most >= 128 else max(size for size in ROW_STEPS if size <= most)


@dataclass(slots=True)
class StaticPass:
    """What the forward pass under way writes and sees; shared by all layers.

    Layers know nothing else of their cache: a reference to it would keep their memory until a collection.
    """

    rows: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # [R]
    columns: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.int64))  # [R, Q]
    width: int = 0  # columns that queries may see
    first: int | None = None  # the rows are first..first+R-1: what they hold is a view, not a copy
    shape: tuple[int, int] = (0, 0)  # rows and columns allocated in every layer
    dtype: torch.dtype | None = None  # of keys and values; None: as the model computes them


class StaticLayer(CacheLayerMixin):
    """Keys and values of one layer, [rows, kv_heads, columns, D] each."""

    def __init__(self, now: StaticPass):
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
        for name in ("keys", "values"):
            old = self.keys if name == "keys" else self.values
            if old is not None:
                setattr(self, name, enlarged(old, rows, columns))

    def copy(self, old: torch.Tensor, new: torch.Tensor, width: int) -> None:
        """Copy the first ``width`` columns of the rows ``old`` [N] to the rows ``new`` [N]."""
        for stored in (self.keys, self.values):
            if stored is not None:
                stored[new, :, :width] = stored[old, :, :width]


class StaticCache:
    """The layers' buffers. ``dtype``: of keys and values; None: as the model computes them.

    ``shape``: rows and columns to allocate at first. ``tensors`` is what a model of transformers takes.
    """

    def __init__(self, layers: int, dtype: torch.dtype | None = None, shape: tuple[int, int] = (0, 0)):
        self.now = StaticPass(shape=shape, dtype=dtype)
        self._layers = [StaticLayer(self.now) for _ in range(layers)]
        self.tensors = Cache(layers=list(self._layers))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every layer."""
        return self.now.shape

    def reserve(self, rows: int, columns: int) -> bool:
        """Allocate at least ``rows`` and ``columns``. Whether the buffers moved."""
        shape = max(self.shape[0], row_bucket(rows)), max(self.shape[1], width_bucket(columns))
        if shape == self.shape:
            return False
        self.now.shape = shape
        for layer in self._layers:
            layer.resize()
        return True

    def copy(self, pairs: Sequence[tuple[int, int]], width: int, device: torch.device) -> None:
        """Copy the first ``width`` columns of rows, by (old, new)."""
        if pairs:
            old, new = torch.tensor(pairs, device=device).T
            for layer in self._layers:
                layer.copy(old, new, width)

    def bytes(self) -> int:
        """Memory of all buffers."""
        stored = (tensor for layer in self._layers for tensor in (layer.keys, layer.values))
        return sum(tensor.numel() * tensor.element_size() for tensor in stored if tensor is not None)
