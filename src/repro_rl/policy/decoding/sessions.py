"""Conversations that keep their KV cache between turns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch

from repro_rl.policy.base import Keys, SamplingSettings
from repro_rl.policy.decoding.guided import guided_plan
from repro_rl.policy.decoding.kernels.library import DecodeKernels
from repro_rl.policy.decoding.kv_slots import SlotCache, SlotTable
from repro_rl.policy.decoding.prompt_decoders import MIN_PREFIX, common_prefix, passes
from repro_rl.policy.decoding.row_cache import left_padded
from repro_rl.policy.decoding.sampling import BatchSampling, sample_rows
from repro_rl.policy.decoding.slot_decoder import SlotDecoder
from repro_rl.policy.forward import packed
from repro_rl.policy.model.memory import SAMPLING, memory_explained
from repro_rl.policy.model.mode import evaluating
from repro_rl.policy.token_policy import CachedConversations
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids

IDLE_SHARE = 0.5  # of a pass's rows that may be idle: copying the others' cache costs more


class LocalPolicy(Protocol):
    """What a session with a KV cache needs of a policy whose model is in this process."""

    model: Any
    codec: TextCodec
    mixed: bool  # forward passes run under bfloat16 autocast
    max_batch_tokens: int  # cells (rows x width) of one pass

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def uses_packed(self) -> bool: ...

    @property
    def decode_kernels(self) -> DecodeKernels | None: ...

    def precision(self) -> AbstractContextManager[Any]: ...


class CachedSession(CachedConversations):
    """Conversations of a policy whose model ``keeps_cache``. See ChatSession.

    Conversations that are equal so far share a slot of the cache; in grouped rollouts many are. First turns
    that begin alike share the pass over their common part.
    """

    def __init__(self, policy: LocalPolicy):
        super().__init__(policy.codec)
        self.policy = policy
        self.slots = SlotTable()
        self._cache = SlotCache(policy.model.config.num_hidden_layers)

    @torch.no_grad()
    @memory_explained("sampling", SAMPLING)
    def _answer(
        self,
        rows: Sequence[int],
        turns: Sequence[Ids],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None,
    ) -> list[Completion]:
        policy = self.policy
        plan = guided_plan(policy.codec, forms, settings)
        decoder = self._decoder(rows)
        with evaluating(policy.model), policy.precision():
            blocks = self._read_turns(decoder, rows, turns if plan is None else plan.begin(turns))
            logits = decoder.append(list(blocks), list(blocks.values()))
            order = {slot: index for index, slot in enumerate(blocks)}
            branch = np.array([order[self.slots.slot(row)] for row in rows])
            batch = BatchSampling(settings, policy.codec.answer_tokens, policy.name, plan)
            sampled = sample_rows(decoder, logits, branch, keys, batch)
        return [row.completion(turn, policy.codec) for row, turn in zip(sampled, turns, strict=True)]

    def close(self, row: int) -> None:
        """See ChatSession. The slot is free when nobody else is in it."""
        super().close(row)
        self.slots.remove(row)

    def _decoder(self, rows: Sequence[int]) -> SlotDecoder:
        """What appends to the slots while ``rows`` are sampled."""
        return _CachedSlots(self.policy, self.slots, self._cache, rows)

    def _read_turns(self, decoder: SlotDecoder, rows: Sequence[int], turns: Sequence[Ids]) -> dict[int, Ids]:
        """Slot -> the tokens to append to it: every turn, and the last token of the answer before it."""
        new: dict[Ids, list[int]] = {}
        appended: list[tuple[int, Ids]] = []
        for row, turn in zip(rows, turns, strict=True):
            ids = self.conversation(row).ids
            if row in self.slots:
                cached = self.slots.lengths[self.slots.slot(row)]
                appended.append((row, (*ids[cached:], *turn)))
            else:
                new.setdefault((*ids, *turn), []).append(row)
        blocks = decoder.divide(appended)
        if new:
            blocks |= self._begin(decoder, new)
        return blocks

    def _begin(self, decoder: SlotDecoder, new: dict[Ids, list[int]]) -> dict[int, Ids]:
        """Slots for new conversations, their common prefix computed once; what is left to append to each."""
        blocks = list(new)
        slots = [self.slots.add(rows) for rows in new.values()]
        shared = common_prefix(blocks) if len(blocks) > 1 else 0
        if shared < MIN_PREFIX:
            return dict(zip(slots, blocks, strict=True))
        decoder.append(slots[:1], [blocks[0][:shared]])
        for slot in slots[1:]:
            self.slots.lengths[slot] = shared
        decoder.copy([(slots[0], slot) for slot in slots[1:]])
        return {slot: block[shared:] for slot, block in zip(slots, blocks, strict=True)}


class _CachedSlots(SlotDecoder):
    """Appends tokens to slots of a ``SlotCache``."""

    def __init__(self, policy: LocalPolicy, slots: SlotTable, cache: SlotCache, rows: Sequence[int]):
        super().__init__(slots, rows)
        self.policy, self.cache = policy, cache
        self.device = policy.device
        self.uses_packed = policy.uses_packed  # asked once a turn: it looks at every parameter

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy what slots hold, by (old, new)."""
        if pairs:
            self.cache.reserve(len(self.slots), 0)
            self.cache.copy(pairs, max(self.slots.lengths[old] for old, _ in pairs), self.device)

    def append(self, slots: Sequence[int], blocks: Sequence[Ids]) -> torch.Tensor:
        """Append each block to its slot; logits after its last token, [N, V]."""
        lengths = [self.slots.lengths[slot] for slot in slots]
        longest = max(length + len(block) for length, block in zip(lengths, blocks, strict=True))
        # Padding lies behind a slot's end, where the next pass writes: at most one longest block more. So
        # every slot has a column behind its end, for the tokens of idle rows.
        self.cache.reserve(len(self.slots), longest + max(map(len, blocks)))
        appended = dict(zip(slots, blocks, strict=True))
        parts = list(passes(appended, longest, self.policy.max_batch_tokens))
        logits = torch.cat([self._forward({slot: appended[slot] for slot in part}) for part in parts])
        for slot, length, block in zip(slots, lengths, blocks, strict=True):
            self.slots.lengths[slot] = length + len(block)
        place = {slot: index for index, slot in enumerate(chain.from_iterable(parts))}
        return logits[torch.tensor([place[slot] for slot in slots], device=self.device)]

    def _forward(self, blocks: dict[int, Ids]) -> torch.Tensor:
        """One forward pass, blocks left-padded."""
        model, now = self.policy.model, self.cache.now
        slots, now.first = _pass_slots(list(blocks), single=max(map(len, blocks.values())) == 1)
        ids, columns = left_padded(slots, blocks, self.slots.lengths, self.policy.codec.pad_id)
        rows = None  # of the pass whose logits are needed, where some are idle or in another order
        if now.first is not None and slots != list(blocks):
            rows = torch.tensor(list(blocks), device=self.device) - now.first
        now.rows = torch.tensor(slots, device=self.device)
        now.columns = torch.as_tensor(columns, device=self.device)
        now.width = int(columns.max()) + 1
        mask = now.mask(torch.bfloat16 if self.policy.mixed else model.dtype)
        tokens = torch.as_tensor(ids, device=self.device)
        if self.uses_packed:
            rotary = packed.rotary_embedding(model, now.columns)
            return packed.extend(model, self.cache.layers, tokens, rotary, mask, rows)
        logits: torch.Tensor = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=now.columns,
            past_key_values=self.cache.tensors,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits if rows is None else logits[rows]


def _pass_slots(slots: list[int], *, single: bool) -> tuple[list[int], int | None]:
    """The slots that a pass over ``slots`` runs, and the first of them if it runs all from there on.

    Neighbouring slots are a view of the cache, others a copy. With one token each (``single``) a pass takes
    in idle slots for that.
    """
    low, high = min(slots), max(slots) + 1
    if len(slots) >= (high - low) * (1 - IDLE_SHARE if single else 1):
        return list(range(low, high)), low
    return slots, None
