"""Conversations that keep their keys and values between turns: a turn runs its own tokens and the answer's.

Every conversation has a slot of the cache, left-aligned: column j of a slot belongs to its token j, whatever
the other slots hold, so nothing is padded for good and nothing moves when an episode ends. Conversations that
are equal so far share a slot until they differ (in grouped rollouts many are), and first turns that begin
alike share the pass over their common part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, CacheLayerMixin

from repro_rl.policy import packed
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.chat import TokenChat
from repro_rl.policy.decode import MIN_PREFIX, common_prefix
from repro_rl.policy.transformers_policy import TransformersPolicy
from repro_rl.random_streams import uniforms
from repro_rl.types import Completion, Ids

MASK_CELLS = 1 << 26  # rows x queries x keys of one pass: the attention mask is this large
IDLE_SHARE = 0.5  # of a pass's rows that may be for nothing: copying the others' cache costs more
FIRST_COLUMNS = 128  # a slot's room; doubled when a conversation outgrows it

Block = tuple[int, ...]


def keeps_cache(model: Any) -> bool:
    """Whether the slots below serve this model: full attention in every layer, masks of our own allowed."""
    config = model.config
    kinds = getattr(config, "layer_types", None)
    full = all(kind == "full_attention" for kind in kinds) if kinds else not getattr(
        config, "sliding_window", None
    )  # fmt: skip
    return full and getattr(config, "_attn_implementation", None) in ("sdpa", "eager")


class _Place:
    """Where the pass under way writes and what it sees; shared by all layers."""

    slots: torch.Tensor  # [R]
    columns: torch.Tensor  # [R, Q]
    width: int  # columns that any query may see
    begin: int | None  # the slots are begin..begin+R-1, so their part of the cache need not be copied
    room: tuple[int, int] = (0, 0)  # slots, columns of every layer


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: [slots, heads, columns, D], allocated ahead, written in place."""

    def __init__(self, place: _Place):
        super().__init__()
        self.place = place

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = (
            states.new_zeros(self.place.room[0], states.shape[1], self.place.room[1], states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place = self.place
        seen = []
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            assert kept is not None
            kept[place.slots[:, None], :, place.columns] = new.transpose(1, 2).to(kept.dtype)
            begin, rows = place.begin, len(place.slots)
            part = kept[place.slots] if begin is None else kept[begin : begin + rows]
            seen.append(part[:, :, : place.width])
        return seen[0], seen[1]

    def resize(self, slots: int, columns: int) -> None:
        if not self.is_initialized:
            return
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(slots, old.shape[1], columns, old.shape[3])
            new[: old.shape[0], :, : old.shape[2]] = old
            setattr(self, name, new)

    def copy(self, old: torch.Tensor, new: torch.Tensor, width: int) -> None:
        for kept in (self.keys, self.values):
            if kept is not None:
                kept[new, :, :width] = kept[old, :, :width]

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        return self.place.width, 0

    def get_seq_length(self, *_: Any) -> int:
        return self.place.width - self.place.columns.shape[1]

    def get_max_length(self) -> int:
        return -1


class CachedChat(TokenChat):
    """Conversations of a TransformersPolicy whose model ``keeps_cache``."""

    policy: TransformersPolicy

    def __init__(self, policy: TransformersPolicy):
        super().__init__(policy)
        self._place = _Place()
        self._layers = [_SlotLayer(self._place) for _ in range(policy.model.config.num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))
        self._slot: dict[int, int] = {}  # conversation -> its slot
        self._sharers: list[set[int]] = []  # slot -> its conversations
        self._length: list[int] = []  # slot -> tokens whose keys and values it holds
        self._free: list[int] = []
        self._packs = False

    @torch.no_grad()
    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
    ) -> list[Completion]:
        turns = [self.conversation(row).turn(text) for row, text in zip(rows, texts, strict=True)]
        model = self.policy.model
        was_training = model.training
        model.eval()
        self._packs = self.policy.packs  # asked once a turn: it looks at every parameter
        with self.policy.precision():
            logits, node = self._read(rows, turns)
            completions = self._write(rows, turns, keys, settings, logits, node)
        model.train(was_training)
        for row, turn, completion in zip(rows, turns, completions, strict=True):
            self.conversation(row).add(turn, completion.token_ids)
        return completions

    def close(self, row: int) -> None:
        super().close(row)
        slot = self._slot.pop(row, None)
        if slot is not None:
            self._leave(row, slot)

    # Turns and answers ----------------------------------------------------------------------------

    def _read(self, rows: Sequence[int], turns: Sequence[Ids]) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """Run every turn, and the last token of the answer before it. Logits [N, V], row -> its node."""
        fresh: dict[Block, list[int]] = {}
        known: list[tuple[int, Block]] = []
        for row, turn in zip(rows, turns, strict=True):
            if row in self._slot:
                talk = self.conversation(row).ids
                known.append((row, (*talk[self._length[self._slot[row]] :], *turn)))
            else:
                fresh.setdefault((*self.conversation(row).ids, *turn), []).append(row)
        places = self._divide(known)
        if fresh:
            places |= self._begin(fresh)
        logits = self._run(list(places), list(places.values()))
        order = {slot: place for place, slot in enumerate(places)}
        return logits, np.array([order[self._slot[row]] for row in rows])

    def _begin(self, fresh: dict[Block, list[int]]) -> dict[int, Block]:
        """Slots for new conversations, their common beginning run once; what is left to run of each."""
        blocks = list(fresh)
        slots = [self._take() for _ in blocks]
        for slot, rows in zip(slots, fresh.values(), strict=True):
            for row in rows:
                self._enter(row, slot)
        shared = common_prefix(blocks) if len(blocks) > 1 else 0
        if shared < MIN_PREFIX:
            return dict(zip(slots, blocks, strict=True))
        self._run(slots[:1], [blocks[0][:shared]])
        self._copy([slots[0]] * (len(slots) - 1), slots[1:])
        return {slot: block[shared:] for slot, block in zip(slots, blocks, strict=True)}

    def _divide(self, wanted: Sequence[tuple[int, Block]]) -> dict[int, Block]:
        """Give conversations that go on differently slots of their own; slot -> the tokens to run in it.

        Those that do not go on keep the old slot.
        """
        groups: dict[tuple[int, Block], list[int]] = {}
        for row, block in wanted:
            groups.setdefault((self._slot[row], block), []).append(row)
        waiting = {slot: len(self._sharers[slot]) for slot, _ in groups}
        for (slot, _), rows in groups.items():
            waiting[slot] -= len(rows)
        taken = {slot for slot, left in waiting.items() if left}
        places: dict[int, Block] = {}
        old, new = [], []
        for (slot, block), rows in groups.items():
            target = slot
            if slot in taken:
                target = self._take()
                old.append(slot)
                new.append(target)
                for row in rows:
                    self._leave(row, slot)
                    self._enter(row, target)
            taken.add(slot)
            places[target] = block
        self._copy(old, new)
        return places

    def _write(
        self,
        rows: Sequence[int],
        turns: Sequence[Ids],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
        logits: torch.Tensor,
        node: NDArray[np.int64],
    ) -> list[Completion]:
        """Sample the answers. The last token of each is run with the next turn."""
        policy = self.policy
        tokens: list[list[int]] = [[] for _ in rows]
        logps: list[list[float]] = [[] for _ in rows]
        entropies = np.zeros(len(rows))
        finished = np.zeros(len(rows), dtype=bool)
        alive = np.arange(len(rows))
        for index in range(settings.max_new_tokens):
            chosen, chosen_logp, entropy = policy._sample(
                logits, node, uniforms(keys[alive], index), settings
            )
            for i, token, logp in zip(alive.tolist(), chosen.tolist(), chosen_logp.tolist(), strict=True):
                tokens[i].append(token)
                logps[i].append(logp)
            entropies[alive] += entropy
            ended = np.isin(chosen, list(policy.eos_ids))
            finished[alive[ended]] = True
            alive = alive[~ended]
            if not len(alive) or index + 1 == settings.max_new_tokens:
                break
            places = self._divide([(rows[i], (tokens[i][-1],)) for i in alive.tolist()])
            logits = self._run(list(places), list(places.values()))
            order = {slot: place for place, slot in enumerate(places)}
            node = np.array([order[self._slot[rows[i]]] for i in alive.tolist()])
        return [
            Completion(
                prompt_ids=turns[i],
                token_ids=tuple(tokens[i]),
                logprobs=np.asarray(logps[i], dtype=np.float32),
                text=policy.decode(tuple(tokens[i])),
                finished=bool(finished[i]),
                entropy=float(entropies[i] / max(len(tokens[i]), 1)),
            )
            for i in range(len(rows))
        ]

    # Slots ----------------------------------------------------------------------------------------

    def _take(self) -> int:
        if not self._free:
            self._length.append(0)
            self._sharers.append(set())
            return len(self._length) - 1
        slot = min(self._free)  # low slots first: the cache stays dense
        self._free.remove(slot)
        return slot

    def _enter(self, row: int, slot: int) -> None:
        self._slot[row] = slot
        self._sharers[slot].add(row)

    def _leave(self, row: int, slot: int) -> None:
        self._sharers[slot].discard(row)
        if not self._sharers[slot]:
            self._length[slot] = 0
            self._free.append(slot)

    def _copy(self, old: list[int], new: list[int]) -> None:
        if not old:
            return
        self._make_room(0)
        width = max(self._length[slot] for slot in old)
        here = self.policy.device
        before, after = torch.tensor(old, device=here), torch.tensor(new, device=here)
        for layer in self._layers:
            layer.copy(before, after, width)
        for source, target in zip(old, new, strict=True):
            self._length[target] = self._length[source]

    def _make_room(self, columns: int) -> None:
        """At least ``columns`` in every slot there is."""
        slots, width = self._place.room
        wanted = max(width, FIRST_COLUMNS)
        while wanted < columns:
            wanted *= 2
        if len(self._length) > slots:
            slots = max(len(self._length), min(2 * slots, slots + 64))
        if (slots, wanted) != self._place.room:
            self._place.room = (slots, wanted)
            for layer in self._layers:
                layer.resize(slots, wanted)

    def _run(self, slots: Sequence[int], blocks: Sequence[Block]) -> torch.Tensor:
        """Append each block to its slot; logits after its last token, [N, V]."""
        lengths = [self._length[slot] for slot in slots]
        longest = max(length + len(block) for length, block in zip(lengths, blocks, strict=True))
        # Padding lies behind a slot's end, where the next pass writes: at most one longest block more. So
        # every slot has a column behind its end, for the tokens of idle rows.
        self._make_room(longest + max(map(len, blocks)))
        order = sorted(range(len(slots)), key=lambda i: (len(blocks[i]), slots[i]))
        pieces: list[torch.Tensor] = []
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order):
                queries = (stop + 1 - start) * len(blocks[order[stop]])
                if queries > self.policy.max_batch_tokens or queries * longest > MASK_CELLS:
                    break
                stop += 1
            part = order[start:stop]
            pieces.append(self._pass({slots[i]: blocks[i] for i in part}))
            start = stop
        for slot, length, block in zip(slots, lengths, blocks, strict=True):
            self._length[slot] = length + len(block)
        back = torch.empty(len(order), dtype=torch.int64)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(pieces)[back.to(self.policy.device)]

    def _pass(self, wanted: dict[int, Block]) -> torch.Tensor:
        """One forward pass, blocks left-padded. A query at column c sees the columns up to c of its slot."""
        policy, size = self.policy, max(map(len, wanted.values()))
        slots, begin = list(wanted), None
        low, high = min(slots), max(slots) + 1
        if len(slots) >= (high - low) * (1 - IDLE_SHARE if size == 1 else 1):
            slots, begin = list(range(low, high)), low
        ids = np.full((len(slots), size), policy.pad_id, dtype=np.int64)
        columns = np.empty((len(slots), size), dtype=np.int64)
        for i, slot in enumerate(slots):
            block, length = wanted.get(slot, ()), self._length[slot]
            gap = size - len(block)
            ids[i, gap:] = block
            columns[i, gap:] = np.arange(length, length + len(block))
            columns[i, :gap] = length + len(block) + np.arange(gap)
        here, place = policy.device, self._place
        asked = None  # rows of the wanted slots, where some are idle or in another order
        if begin is not None and slots != list(wanted):
            asked = torch.tensor(list(wanted), device=here) - begin
        place.slots = torch.tensor(slots, device=here)
        place.begin = begin
        place.columns = torch.as_tensor(columns, device=here)
        place.width = int(columns.max()) + 1
        kind = torch.bfloat16 if policy.mixed else policy.model.dtype
        unseen = torch.arange(place.width, device=here) > place.columns[:, None, :, None]
        # Added to the scores: a mask of booleans would be turned into this one by every layer.
        mask = torch.zeros(unseen.shape, dtype=kind, device=here).masked_fill_(unseen, torch.finfo(kind).min)
        tokens = torch.as_tensor(ids, device=here)
        if self._packs:
            turn = packed.rotation_at(policy.model, place.columns)
            return packed.go_on(policy.model, self._layers, tokens, turn, mask, asked)
        logits: torch.Tensor = policy.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=place.columns,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits if asked is None else logits[asked]
