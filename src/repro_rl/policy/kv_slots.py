"""The KV cache of many growing conversations: one slot each, shared while conversations are equal.

A slot is left-aligned: its column j belongs to its token j, whatever the other slots hold. So nothing is
padded for good, and nothing moves when an episode ends. ``SlotTable`` says which conversation is in which
slot; ``SlotCache`` holds the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from repro_rl.types import Ids

COLUMNS = 128  # columns allocated at first; always a multiple of this
GROWTH = 16  # a sixteenth more columns at least when a conversation outgrows them, so little is wasted
MOST_NEW_SLOTS = 64  # allocated at once; fewer slots than that are doubled


@dataclass(slots=True, frozen=True)
class Division:
    """What must be done so that every slot holds equal conversations again."""

    blocks: dict[int, Ids]  # slot -> the tokens to append to it
    copies: list[tuple[int, int]]  # (slot to copy, slot to write)


class SlotTable:
    """Which conversation is in which slot, and how many tokens each slot holds. No tensors."""

    def __init__(self) -> None:
        self.lengths: list[int] = []  # slot -> tokens that the cache holds
        self._slot: dict[int, int] = {}  # conversation -> slot
        self._members: list[set[int]] = []  # slot -> its conversations
        self._free: set[int] = set()

    def __len__(self) -> int:
        """Slots in use or free."""
        return len(self.lengths)

    def __contains__(self, conversation: int) -> bool:
        return conversation in self._slot

    @property
    def free(self) -> list[int]:
        """Slots without a conversation, ascending."""
        return sorted(self._free)

    def slot(self, conversation: int) -> int:
        """The slot of a conversation."""
        return self._slot[conversation]

    def members(self, slot: int) -> frozenset[int]:
        """The conversations in ``slot``."""
        return frozenset(self._members[slot])

    def add(self, conversations: Iterable[int]) -> int:
        """An empty slot for new conversations that are equal."""
        slot = self._take()
        for conversation in conversations:
            self._enter(conversation, slot)
        return slot

    def remove(self, conversation: int) -> None:
        """Forget a conversation, if it is there; a slot without any is free."""
        slot = self._slot.pop(conversation, None)
        if slot is not None:
            self._leave(conversation, slot)

    def divide(self, appended: Sequence[tuple[int, Ids]]) -> Division:
        """Give conversations that append different tokens slots of their own.

        ``appended``: conversations and their tokens. Conversations of a slot that append nothing keep it. New
        slots are taken in the order of ``appended`` and have the length of the slot they are copied from.
        """
        groups: dict[tuple[int, Ids], list[int]] = {}
        for conversation, block in appended:
            groups.setdefault((self._slot[conversation], block), []).append(conversation)
        staying = {slot: len(self._members[slot]) for slot, _ in groups}
        for (slot, _), conversations in groups.items():
            staying[slot] -= len(conversations)
        taken = {slot for slot, count in staying.items() if count}
        division = Division({}, [])
        for (slot, block), conversations in groups.items():
            target = slot
            if slot in taken:
                target = self._take()
                division.copies.append((slot, target))
                self.lengths[target] = self.lengths[slot]
                for conversation in conversations:
                    self._leave(conversation, slot)
                    self._enter(conversation, target)
            taken.add(slot)
            division.blocks[target] = block
        return division

    def _take(self) -> int:
        if not self._free:
            self.lengths.append(0)
            self._members.append(set())
            return len(self.lengths) - 1
        slot = min(self._free)  # low slots first: the cache stays dense
        self._free.remove(slot)
        return slot

    def _enter(self, conversation: int, slot: int) -> None:
        self._slot[conversation] = slot
        self._members[slot].add(conversation)

    def _leave(self, conversation: int, slot: int) -> None:
        self._members[slot].discard(conversation)
        if not self._members[slot]:
            self.lengths[slot] = 0
            self._free.add(slot)


@dataclass(slots=True)
class SlotPass:
    """What the forward pass under way writes and sees: R slots, Q tokens each; shared by all layers."""

    slots: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # [R]
    columns: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.int64))  # [R, Q]
    width: int = 0  # columns that any query may see
    first: int | None = None  # the slots are first..first+R-1, so their part of the cache need not be copied
    allocated: tuple[int, int] = (0, 0)  # slots, columns of every layer


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, [slots, heads, columns, D], allocated ahead, written in place."""

    def __init__(self, now: SlotPass):
        super().__init__()
        self.now = now

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """See CacheLayerMixin: heads and D are those of the first states."""
        slots, columns = self.now.allocated
        self.keys, self.values = (
            states.new_zeros(slots, states.shape[1], columns, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states [R, heads, Q, D]; return what the queries may see, [R, heads, width, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        now = self.now
        seen = []
        for cached, new in ((self.keys, key_states), (self.values, value_states)):
            assert cached is not None
            cached[now.slots[:, None], :, now.columns] = new.transpose(1, 2).to(cached.dtype)
            first, rows = now.first, len(now.slots)
            part = cached[now.slots] if first is None else cached[first : first + rows]
            seen.append(part[:, :, : now.width])
        return seen[0], seen[1]

    def resize(self, slots: int, columns: int) -> None:
        """Allocate ``slots`` and ``columns``, no fewer than now, and keep what is there."""
        if self.keys is not None:
            self.keys = enlarged(self.keys, slots, columns)
        if self.values is not None:
            self.values = enlarged(self.values, slots, columns)

    def copy(self, old: torch.Tensor, new: torch.Tensor, width: int) -> None:
        """Copy the first ``width`` columns of the slots ``old`` [N] to the slots ``new`` [N]."""
        for cached in (self.keys, self.values):
            if cached is not None:
                cached[new, :, :width] = cached[old, :, :width]

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """See CacheLayerMixin: keys that a query may see, and the first of them."""
        return self.now.width, 0

    def get_seq_length(self, *_: Any) -> int:
        """See CacheLayerMixin: tokens before those of the pass."""
        return self.now.width - self.now.columns.shape[1]

    def get_max_length(self) -> int:
        """See CacheLayerMixin: no limit."""
        return -1


class SlotCache:
    """The KV cache of all slots. ``layers`` serve ``packed.extend``, ``cache`` a model of transformers."""

    def __init__(self, layers: int):
        self.now = SlotPass()
        self.layers = [SlotLayer(self.now) for _ in range(layers)]
        self.cache = Cache(layers=list(self.layers))

    def reserve(self, slots: int, columns: int) -> None:
        """Allocate at least ``slots`` with ``columns`` each."""
        now_slots, now_columns = self.now.allocated
        new_columns = max(now_columns, grown_columns(now_columns, columns))
        new_slots = now_slots
        if slots > now_slots:
            new_slots = max(slots, min(2 * now_slots, now_slots + MOST_NEW_SLOTS))
        if (new_slots, new_columns) != self.now.allocated:
            self.now.allocated = (new_slots, new_columns)
            for layer in self.layers:
                layer.resize(new_slots, new_columns)

    def copy(self, pairs: Sequence[tuple[int, int]], width: int, device: torch.device) -> None:
        """Copy the first ``width`` columns of slots, by (old, new)."""
        old, new = torch.tensor(pairs, device=device).T
        for layer in self.layers:
            layer.copy(old, new, width)


def grown_columns(now: int, needed: int) -> int:
    """Columns to allocate where there are ``now`` and ``needed`` are."""
    if needed > now:
        needed = max(needed, now + now // GROWTH)
    return max(1, -(-needed // COLUMNS)) * COLUMNS


def enlarged(old: torch.Tensor, slots: int, columns: int) -> torch.Tensor:
    """[slots, heads, columns, D] with what ``old`` [S, heads, C, D] holds, and zeros in the rest."""
    new = old.new_zeros(slots, old.shape[1], columns, old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new
