"""A forward pass that appends to slots whose shared prefixes are stored once, for wide models on a CPU.

No token is padded, and idle rows are not computed. Attention reads a prefix that rows share once for all of
them (``prefix_attention``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from repro_rl.policy.decoding.kv_slots import SlotTable
from repro_rl.policy.decoding.wide.prefix_attention import (
    Part,
    attend_flash,
    attend_prefix,
    attend_single,
    merge_parts,
)
from repro_rl.policy.decoding.wide.prefix_store import Prefix, PrefixStore
from repro_rl.policy.forward import packed
from repro_rl.types import Ids


@dataclass(slots=True, frozen=True)
class RowRange:
    """Rows of a pass in neighbouring slots, so that their keys are one view of the table."""

    start: int  # rows start..stop-1
    stop: int
    slot: int  # of the first row
    mask: torch.Tensor  # [R, 1, 1, W] added to the scores of the rows' last tokens


@dataclass(slots=True, frozen=True)
class PassRow:
    """One row of a pass."""

    start: int  # its tokens are start..stop-1
    stop: int
    slot: int
    width: int  # columns that its last token sees


@dataclass(slots=True, frozen=True)
class SharedPrefix:
    """A prefix, the tokens of a pass that see it, and the rows they belong to."""

    prefix: Prefix
    tokens: torch.Tensor
    rows: torch.Tensor


class RaggedPass:
    """A forward pass that appends a block of tokens to each of R slots: T tokens, no padding."""

    def __init__(self, store: PrefixStore, table: SlotTable, blocks: dict[int, Ids]):
        """``blocks``: slot -> the tokens to append, slots ascending."""
        slots, lengths = list(blocks), [table.lengths[slot] for slot in blocks]
        sizes = np.fromiter(map(len, blocks.values()), dtype=np.int64, count=len(blocks))
        stops = np.cumsum(sizes)
        prefixes = np.array([store.prefix_length(slot) for slot in slots])
        within = np.arange(stops[-1]) - np.repeat(stops - sizes, sizes)
        position = np.repeat(np.asarray(lengths), sizes) + within
        self.store, self.size = store, len(slots)
        self.ids = torch.tensor([token for block in blocks.values() for token in block])
        self.position = torch.from_numpy(position)
        self.columns = torch.from_numpy(position - np.repeat(prefixes, sizes))
        self.slots = torch.from_numpy(np.repeat(np.asarray(slots), sizes))
        self.ends = torch.from_numpy(stops - 1)
        widths = (np.asarray(lengths) + sizes - prefixes).tolist()
        store.reserve(max(slots) + 1, max(widths))
        self._rows = [
            PassRow(stop - size, stop, slot, width)
            for size, stop, slot, width in zip(sizes.tolist(), stops.tolist(), slots, widths, strict=True)
        ]
        self.prefixes = _shared_prefixes(store, self._rows)
        self._causal: torch.Tensor | None = None  # see _mask

    @property
    def single(self) -> bool:
        """Whether every row appends one token."""
        return len(self.ids) == self.size

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """[N, heads * D] for queries [N, heads, D] of all tokens, or of the last token of every row."""
        last = len(query) == self.size
        sums = query.new_empty(query.shape[:2], dtype=torch.float32)
        own = (self._last if last else self._every)(layer, query, sums)
        for shared in self.prefixes:
            index = shared.rows if last else shared.tokens
            keys, values = shared.prefix.layers[layer]
            part = attend_prefix(query.index_select(0, index), keys, values)
            own[index] = merge_parts((own.index_select(0, index), sums.index_select(0, index)), part)
        return own.flatten(1)

    def _last(self, layer: int, query: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        """One query a row, over the row's columns. Fills ``sums`` [R, heads]."""
        out = torch.empty_like(query)
        for span in self._ranges:
            keys, values = self._seen(layer, span.slot, span.stop - span.start, span.mask.shape[-1])
            part = slice(span.start, span.stop)
            grouped = query[part].view(len(keys), keys.shape[1], -1, query.shape[-1])
            result, total = attend_single(grouped, keys, values, span.mask.to(query.dtype))
            out[part], sums[part] = result.flatten(1, 2), total.flatten(1)
        return out

    def _every(self, layer: int, query: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        """All tokens, row by row, over the row's columns. Fills ``sums`` [T, heads]."""
        out = torch.empty_like(query)
        for row in self._rows:
            keys, values = self._seen(layer, row.slot, 1, row.width)
            part = slice(row.start, row.stop)
            size = row.stop - row.start
            states = query[part].transpose(0, 1)[None]
            if size == row.width:
                result: Part = attend_flash(states, keys, values, causal=True)
            else:
                result = attend_flash(states, keys, values, self._mask(size, row.width, query.dtype))
            out[part], sums[part] = result[0][0].transpose(0, 1), result[1][0].transpose(0, 1)
        return out

    @cached_property
    def _ranges(self) -> list[RowRange]:
        """The rows in neighbouring slots, put together when the first layer asks for them."""
        return _row_ranges([row.slot for row in self._rows], [row.width for row in self._rows])

    def _seen(self, layer: int, slot: int, count: int, width: int) -> packed.KV:
        return self.store.seen(layer, slot, slot + count, width)

    def _mask(self, size: int, width: int, kind: torch.dtype) -> torch.Tensor:
        """[size, width]: of the last ``size`` of ``width`` columns, each sees those up to itself.

        It is a part of one table, in which query i sees the columns up to ``most`` + i.
        """
        most = max(row.width - (row.stop - row.start) for row in self._rows)
        if self._causal is None:
            longest = max(row.stop - row.start for row in self._rows)
            self._causal = torch.full((longest, most + longest), -torch.inf, dtype=kind).triu_(most + 1)
        first = most - (width - size)
        return self._causal[:size, first : first + width]


def _row_ranges(slots: Sequence[int], widths: Sequence[int]) -> list[RowRange]:
    cuts = [0, *(i for i in range(1, len(slots)) if slots[i] != slots[i - 1] + 1), len(slots)]
    ranges = []
    for start, stop in pairwise(cuts):
        seen = torch.tensor(widths[start:stop])
        hidden = torch.arange(int(seen.max())) >= seen[:, None]
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[:, None, None]
        ranges.append(RowRange(start, stop, slots[start], mask))
    return ranges


def _shared_prefixes(store: PrefixStore, rows: Sequence[PassRow]) -> list[SharedPrefix]:
    groups: dict[int, tuple[Prefix, list[int]]] = {}
    for index, row in enumerate(rows):
        prefix = store.prefix(row.slot)
        if prefix is not None:
            groups.setdefault(id(prefix), (prefix, []))[1].append(index)
    return [
        SharedPrefix(
            prefix,
            torch.cat([torch.arange(rows[i].start, rows[i].stop) for i in members]),
            torch.tensor(members),
        )
        for prefix, members in groups.values()
    ]


def run_pass(model: Any, step: RaggedPass) -> torch.Tensor:
    """Run a pass; logits [R, V] after the last token of every row."""
    model = packed.without_wrappers(model)
    inner = model.model
    x = packed.embedded(inner, step.ids)
    rotary = packed.rotary_embedding(model, step.position[None])
    for index, layer in enumerate(inner.layers):
        attention = layer.self_attn
        y = packed.normed(x, layer.input_layernorm)
        states = (
            packed.project_heads(attention, "k", y, rotary),
            packed.project_heads(attention, "v", y, None),
        )
        step.store.write(index, step.slots, step.columns, states)
        if layer is inner.layers[-1] and not step.single:
            x, y = x.index_select(0, step.ends), y.index_select(0, step.ends)
            rotary = rotary[0].index_select(0, step.ends), rotary[1].index_select(0, step.ends)
        attended = step.attend(index, packed.project_heads(attention, "q", y, rotary))
        x = packed.rest_of_layer(layer, x, attended)
    return packed.last_logits(model, x)
