"""Conversations with wide models on a CPU: see ``decoding.sessions`` and ``decoder``."""

from __future__ import annotations

from collections.abc import Sequence

from repro_rl.policy.decoding.sessions import CachedSession, LocalPolicy
from repro_rl.policy.decoding.slot_decoder import SlotDecoder
from repro_rl.policy.decoding.wide.decoder import WideSlots
from repro_rl.policy.decoding.wide.prefix_store import PrefixStore


class WideSession(CachedSession):
    """Conversations of a policy that ``uses_packed`` and whose model ``is_wide``.

    Long first turns are kept once for all conversations that begin with them.
    """

    def __init__(self, policy: LocalPolicy):
        super().__init__(policy)
        self.store = PrefixStore(policy.model.config.num_hidden_layers)

    def close(self, row: int) -> None:
        """See ChatSession. A prefix is freed with the last conversation that begins with it."""
        super().close(row)
        for slot in self.slots.free:
            self.store.release(slot)

    def _decoder(self, rows: Sequence[int]) -> SlotDecoder:
        policy = self.policy
        return WideSlots(
            policy.model, self.slots, self.store, rows, policy.max_batch_tokens, policy.decode_kernels
        )
