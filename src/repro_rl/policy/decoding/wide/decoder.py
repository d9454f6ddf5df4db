"""Sampling from wide models on a CPU, over slots whose shared prefixes are stored once.

Where matrix products are what costs, other things pay than for a tiny model: see ``ragged_pass``. Window
prompts and conversations use the same slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from repro_rl.policy.decoding.kernels.library import DecodeKernels
from repro_rl.policy.decoding.kv_slots import SlotTable
from repro_rl.policy.decoding.sampling import DecodeBatch
from repro_rl.policy.decoding.slot_decoder import SlotDecoder
from repro_rl.policy.decoding.wide.compiled_pass import CompiledPass
from repro_rl.policy.decoding.wide.prefix_store import PrefixStore
from repro_rl.policy.decoding.wide.ragged_pass import RaggedPass, run_pass
from repro_rl.policy.forward import packed
from repro_rl.policy.forward.tree import build_tree
from repro_rl.types import Ids

MIN_HIDDEN = 256  # a narrower model is bound by the number of calls: see ``forward.packed.extend``


def is_wide(model: Any) -> bool:
    """Whether sampling from a packable model is bound by its matrix products."""
    return bool(model.config.hidden_size >= MIN_HIDDEN)


class WideSlots(SlotDecoder):
    """Appends tokens to slots of a ``PrefixStore``. ``most_tokens``: of one pass, unless a block has more.

    ``kernels``: for passes of one token a row; None: torch's own.
    """

    def __init__(
        self,
        model: Any,
        slots: SlotTable,
        store: PrefixStore,
        rows: Sequence[int],
        most_tokens: int,
        kernels: DecodeKernels | None = None,
    ):
        super().__init__(slots, rows)
        self.model, self.store, self.most_tokens = model, store, most_tokens
        self.compiled = None if kernels is None else CompiledPass(model, kernels)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy what slots hold, by (old, new)."""
        if pairs:
            # The rows begin to differ, and soon all of them will: one allocation for all.
            self.store.reserve(max(len(self.slots), len(self.rows)), 0)
            self.store.fork(pairs, self.slots.lengths)

    def append(self, slots: Sequence[int], blocks: Sequence[Ids]) -> torch.Tensor:
        """Append each block to its slot; logits after its last token, [N, V]."""
        lengths = self.slots.lengths
        order = sorted(range(len(slots)), key=slots.__getitem__)
        parts: list[torch.Tensor] = []
        while order:
            stop, tokens = 1, len(blocks[order[0]])
            while stop < len(order) and tokens + len(blocks[order[stop]]) <= self.most_tokens:
                tokens += len(blocks[order[stop]])
                stop += 1
            taken, order = order[:stop], order[stop:]
            step = RaggedPass(self.store, self.slots, {slots[i]: blocks[i] for i in taken})
            if self.compiled is not None and step.single:
                parts.append(self.compiled.run(step))
            else:
                parts.append(run_pass(self.model, step))
        for slot, block in zip(slots, blocks, strict=True):
            lengths[slot] += len(block)
        back = torch.empty(len(slots), dtype=torch.int64)
        back[torch.tensor(sorted(range(len(slots)), key=slots.__getitem__))] = torch.arange(len(slots))
        return torch.cat(parts)[back]


class WidePromptDecoder:
    """A decoder of one batch of distinct prompts for wide models. See prompt_decoders.PromptDecoder."""

    def __init__(self, model: Any, most_tokens: int, kernels: DecodeKernels | None = None):
        self.model, self.most_tokens, self.kernels = model, most_tokens, kernels
        self._tree = build_tree([np.zeros(1, dtype=np.int64)])
        self._kv = packed.TreeKV()
        self._slots: WideSlots | None = None  # from the second token on

    def prefill(self, prompts: list[Ids], new_tokens: int) -> torch.Tensor:
        """See PromptDecoder."""
        self._tree = build_tree([np.array(ids, dtype=np.int64) for ids in prompts])
        return packed.forward(self.model, self._tree, self._tree.ends(), self._kv if new_tokens > 1 else None)

    def advance(self, branches: DecodeBatch) -> torch.Tensor:
        """See Decoder."""
        return self._decoder(branches).advance(branches)

    def takes(self, lengths: Sequence[int]) -> bool:
        """See BlockDecoder: any lengths."""
        return True

    def advance_blocks(self, branches: DecodeBatch, blocks: Sequence[Ids]) -> torch.Tensor:
        """See BlockDecoder."""
        return self._decoder(branches).advance_blocks(branches, blocks)

    def _decoder(self, branches: DecodeBatch) -> WideSlots:
        """The slots, filled with the prompts of the rows that sample when it is first asked for."""
        if self._slots is None:
            rows: dict[int, list[int]] = {}
            for row, prompt in zip(
                branches.rows.tolist(), branches.parent[branches.branch].tolist(), strict=True
            ):
                rows.setdefault(prompt, []).append(row)
            table, store = SlotTable(), PrefixStore(self.model.config.num_hidden_layers)
            slots = [table.add(members) for members in rows.values()]
            for slot, prompt in zip(slots, rows, strict=True):
                table.lengths[slot] = int(self._tree.length[prompt])
            store.fill(slots, self._tree, list(rows), self._kv)
            rows_of_batch = range(int(branches.rows.max()) + 1)
            self._slots = WideSlots(self.model, table, store, rows_of_batch, self.most_tokens, self.kernels)
        return self._slots
