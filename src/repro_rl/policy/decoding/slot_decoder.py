"""Decode steps over conversations in slots: what does not depend on how a slot's keys and values are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from repro_rl.policy.decoding.kv_slots import SlotTable
from repro_rl.policy.decoding.sampling import DecodeBatch
from repro_rl.types import Ids


class SlotDecoder(ABC):
    """Appends tokens to conversations in slots. A branch of the ``rows`` being sampled is a slot.

    ``rows``: conversations, in the order of the batch. See sampling.BlockDecoder.
    """

    def __init__(self, slots: SlotTable, rows: Sequence[int]):
        self.slots, self.rows = slots, rows

    @abstractmethod
    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy what slots hold, by (old, new)."""

    @abstractmethod
    def append(self, slots: Sequence[int], blocks: Sequence[Ids]) -> torch.Tensor:
        """Append each block to its slot; logits after its last token, [N, V]."""

    def advance(self, branches: DecodeBatch) -> torch.Tensor:
        """See Decoder."""
        return self.advance_blocks(branches, [(token,) for token in branches.token.tolist()])

    def takes(self, lengths: Sequence[int]) -> bool:
        """See BlockDecoder: any lengths."""
        return True

    def advance_blocks(self, branches: DecodeBatch, blocks: Sequence[Ids]) -> torch.Tensor:
        """See BlockDecoder. New slots are taken in the order of the rows."""
        branch = branches.branch.tolist()
        active = [self.rows[row] for row in branches.rows.tolist()]
        self.divide([(row, blocks[b]) for row, b in zip(active, branch, strict=True)])
        slot = dict(zip(branch, map(self.slots.slot, active), strict=True))
        return self.append([slot[b] for b in range(len(blocks))], blocks)

    def divide(self, appended: Sequence[tuple[int, Ids]]) -> dict[int, Ids]:
        """See SlotTable.divide; what slots hold follows it. Returns slot -> the tokens to append."""
        division = self.slots.divide(appended)
        self.copy(division.copies)
        return division.blocks
