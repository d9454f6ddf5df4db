"""Keys and values of many slots: a prefix that slots share is stored once, the rest in columns of their own.

The columns are a table with a row for each slot, allocated for the longest of them and a little more. The
shared prefixes, which in grouped rollouts are the long first turns, lie outside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from repro_rl.policy.decoding.kv_slots import grown_columns
from repro_rl.policy.decoding.row_cache import enlarged
from repro_rl.policy.forward.packed import KV, TreeKV
from repro_rl.policy.forward.tree import TokenTree

MIN_PREFIX = 64  # tokens; a shorter beginning is copied


@dataclass(slots=True, eq=False)
class Prefix:
    """The beginning of the conversations in some slots; it is freed when none of them refers to it."""

    length: int
    layers: list[KV]  # keys and values of each layer, [kv_heads, length, D]


class PrefixStore:
    """The keys and values of all slots, for every layer. Columns are counted behind a slot's prefix."""

    def __init__(self, layers: int):
        self._table: list[KV | None] = [None] * layers  # [slots, kv_heads, columns, D] each
        self._prefix: list[Prefix | None] = []  # by slot
        self._slots = self._columns = 0  # allocated

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        prefixes = {id(p): p for p in self._prefix if p is not None}.values()
        pairs = [kv for kv in self._table if kv is not None] + [kv for p in prefixes for kv in p.layers]
        return sum(tensor.nbytes for pair in pairs for tensor in pair)

    def prefix(self, slot: int) -> Prefix | None:
        """What the slot's conversation begins with, if that is stored apart."""
        return self._prefix[slot] if slot < len(self._prefix) else None

    def prefix_length(self, slot: int) -> int:
        """Tokens in the slot's prefix."""
        prefix = self.prefix(slot)
        return 0 if prefix is None else prefix.length

    def release(self, slot: int) -> None:
        """Forget the prefix of a slot that is free."""
        if slot < len(self._prefix):
            self._prefix[slot] = None

    def reserve(self, slots: int, columns: int) -> None:
        """Allocate at least ``slots`` with ``columns`` each, and keep what is there."""
        self._prefix += [None] * (slots - len(self._prefix))
        new_slots, new_columns = max(slots, self._slots), self._columns
        if columns > self._columns:
            new_columns = grown_columns(self._columns, columns)
        if (new_slots, new_columns) == (self._slots, self._columns):
            return
        for layer, kv in enumerate(self._table):
            if kv is not None:
                self._table[layer] = None  # so that one layer's old tensors are all that is there twice
                self._table[layer] = (
                    enlarged(kv[0], new_slots, new_columns),
                    enlarged(kv[1], new_slots, new_columns),
                )
        self._slots, self._columns = new_slots, new_columns

    def write(self, layer: int, slots: torch.Tensor, columns: torch.Tensor, states: KV) -> None:
        """Write keys and values [T, kv_heads, D] at ``columns`` [T] of ``slots`` [T]."""
        keys, values = self.table(layer, states[0])
        keys[slots, :, columns], values[slots, :, columns] = states

    def table(self, layer: int, like: torch.Tensor) -> KV:
        """Keys and values of a layer, [slots, kv_heads, columns, D]; empty ones for states such as ``like``.

        ``like``: [T, kv_heads, D].
        """
        kv = self._table[layer]
        if kv is None:
            shape = self._slots, like.shape[1], self._columns, like.shape[2]
            kv = self._table[layer] = like.new_zeros(shape), like.new_zeros(shape)
        return kv

    def seen(self, layer: int, first: int, stop: int, width: int) -> KV:
        """The first ``width`` columns of the slots first..stop-1, [R, kv_heads, width, D], as views."""
        kv = self._table[layer]
        assert kv is not None
        return kv[0][first:stop, :, :width], kv[1][first:stop, :, :width]

    def fork(self, pairs: Sequence[tuple[int, int]], lengths: Sequence[int]) -> None:
        """Make slots hold what others do, by (old, new); ``lengths``: tokens of every slot.

        What the old slot holds becomes a shared prefix where it is long enough; a little is copied.
        """
        for old in dict.fromkeys(old for old, _ in pairs):
            own = lengths[old] - self.prefix_length(old)
            if own >= MIN_PREFIX and 2 * own >= self.prefix_length(old):
                self._prefix[old] = self._whole(old, own)
                own = 0
            new = [target for source, target in pairs if source == old]
            for slot in new:
                self._prefix[slot] = self._prefix[old]
            for kv in self._table:
                if kv is not None and own:
                    for tensor in kv:
                        tensor[new, :, :own] = tensor[old, :, :own].clone()

    def _whole(self, slot: int, own: int) -> Prefix:
        """All that a slot holds: its prefix and ``own`` columns."""
        before, layers = self._prefix[slot], []
        for layer, kv in enumerate(self._table):
            assert kv is not None
            columns = kv[0][slot, :, :own], kv[1][slot, :, :own]
            if before is None:
                layers.append((columns[0].clone(), columns[1].clone()))
            else:
                keys, values = before.layers[layer]
                layers.append((torch.cat([keys, columns[0]], 1), torch.cat([values, columns[1]], 1)))
        return Prefix(own + (0 if before is None else before.length), layers)

    def fill(self, slots: Sequence[int], tree: TokenTree, rows: Sequence[int], kv: TreeKV) -> None:
        """Put the sequences ``rows`` of a tree into empty ``slots``, and empty ``kv``.

        What all of them begin with is their prefix, at least one token short of each.
        """
        length = tree.length[list(rows)]
        path = tree.path[list(rows), : int(length.max())]
        shared = int(np.cumprod((path == path[0]).all(axis=0)[: int(length.min()) - 1]).sum())
        shared = shared if shared >= MIN_PREFIX and len(slots) > 1 else 0
        row, column = np.nonzero(np.arange(path.shape[1] - shared) < (length - shared)[:, None])
        self.reserve(max(slots) + 1, int(length.max()) - shared)
        beginning = torch.from_numpy(path[0, :shared].copy())
        where = torch.from_numpy(np.asarray(slots)[row]), torch.from_numpy(column)
        nodes = torch.from_numpy(path[row, column + shared])
        layers: list[KV] = []
        for layer in range(len(self._table)):
            keys, values = kv.layers[layer]
            self.write(layer, *where, (keys.index_select(0, nodes), values.index_select(0, nodes)))
            if shared:
                layers.append((_by_head(keys, beginning), _by_head(values, beginning)))
            kv.layers[layer] = (keys[:0], values[:0])
        kv.layers.clear()
        prefix = Prefix(shared, layers) if shared else None
        for slot in slots:
            self._prefix[slot] = prefix


def _by_head(states: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """[kv_heads, P, D] of the ``nodes`` [P] of states [N, kv_heads, D]."""
    return states.index_select(0, nodes).transpose(0, 1).contiguous()
