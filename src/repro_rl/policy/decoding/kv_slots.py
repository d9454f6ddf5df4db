"""The KV cache of many growing conversations: one slot each, shared while conversations are equal.

A slot is left-aligned: its column j belongs to its token j, whatever the other slots hold. So nothing is
padded for good, and nothing moves when an episode ends. ``SlotTable`` says which conversation is in which
slot; ``SlotCache`` holds the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from repro_rl.policy.decoding.row_cache import RowCache
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


class SlotCache(RowCache):
    """The KV cache of all slots: a row is a slot."""

    def reserve(self, slots: int, columns: int) -> None:
        """Allocate at least ``slots`` with ``columns`` each."""
        now_slots, now_columns = self.shape
        new_slots = now_slots
        if slots > now_slots:
            new_slots = max(slots, min(2 * now_slots, now_slots + MOST_NEW_SLOTS))
        self.resize(new_slots, max(now_columns, grown_columns(now_columns, columns)))


def grown_columns(now: int, needed: int) -> int:
    """Columns to allocate where there are ``now`` and ``needed`` are."""
    if needed > now:
        needed = max(needed, now + now // GROWTH)
    return max(1, -(-needed // COLUMNS)) * COLUMNS
