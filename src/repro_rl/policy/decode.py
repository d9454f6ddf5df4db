"""Prompts to logits, then one token more for each row: the two ways of running a model while sampling.

``HubDecoder`` calls any model of transformers, with its cache; ``PackedDecoder`` runs ``packed`` over the
tree of the prompts, with keys and values in buffers that are allocated once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.policy import packed
from repro_rl.policy.tree import TokenTree, build_tree
from repro_rl.types import Ids

MIN_PREFIX = 16  # a shorter common prefix costs more to copy than to compute
DEAD_SHARE = 0.2  # of a buffer's rows; more of them are worth the copy that removes them


class Decoder(Protocol):
    """One batch of distinct prompts."""

    def prefill(self, prompts: list[Ids], new_tokens: int) -> torch.Tensor:
        """Logits [P, V] after every prompt; at most ``new_tokens`` more will be asked for."""
        ...

    def advance(self, parent: NDArray[np.int64], token: NDArray[np.int64]) -> torch.Tensor:
        """Logits [B, V] of B rows, each a row of the last call (``parent``) and its next ``token``."""
        ...


@dataclass(slots=True)
class PrefixCache:
    """What ``HubDecoder`` keeps between batches: the instructions' ids and cache, for one set of weights."""

    entry: tuple[Ids, Any] | None = None


class HubDecoder:
    """Any causal LM of transformers. The longest common prefix of the prompts is computed once."""

    def __init__(self, model: Any, prefix: PrefixCache):
        self.model, self.prefix = model, prefix
        self.device = next(model.parameters()).device
        self._cache: Any = None
        self._mask = self._position = torch.empty(0)

    def prefill(self, prompts: list[Ids], new_tokens: int) -> torch.Tensor:
        from transformers import DynamicCache

        shared = self._shared(prompts)
        width = max(map(len, prompts)) - shared
        ids = np.zeros((len(prompts), width), dtype=np.int64)
        mask = np.ones((len(prompts), shared + width), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, width - (len(prompt) - shared) :] = prompt[shared:]
            mask[row, shared : shared + width - (len(prompt) - shared)] = 0
        position = np.clip(np.cumsum(mask, axis=1) - 1, 0, None)
        if shared:
            self._cache = copy.deepcopy(self._prefix_cache(prompts[0][:shared]))
            self._cache.batch_repeat_interleave(len(prompts))
        else:
            self._cache = DynamicCache(config=self.model.config)
        self._mask = torch.as_tensor(mask, device=self.device)
        self._position = torch.as_tensor(position[:, -1], device=self.device)
        return self._run(
            torch.as_tensor(ids, device=self.device),
            torch.as_tensor(position[:, shared:], device=self.device),
        )

    def advance(self, parent: NDArray[np.int64], token: NDArray[np.int64]) -> torch.Tensor:
        if len(parent) != len(self._mask) or not np.array_equal(parent, np.arange(len(self._mask))):
            select = torch.as_tensor(parent, device=self.device)
            self._cache.batch_select_indices(select)
            self._mask, self._position = self._mask[select], self._position[select]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._position = self._position + 1
        return self._run(torch.as_tensor(token, device=self.device)[:, None], self._position[:, None])

    def _run(self, ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        result = self.model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = result.logits[:, -1]
        return logits

    def _shared(self, prompts: list[Ids]) -> int:
        """Length of the prefix to take from the cache: the one there when it is most of what is shared.

        At one step of an episode prompts share a little more than the instructions (a step number, say); the
        instructions alone stay valid at every step, so they are computed once for a set of weights.
        """
        shared = common_prefix(prompts)
        if self.prefix.entry is not None:
            known = self.prefix.entry[0]
            if 0.7 * shared <= len(known) <= shared and prompts[0][: len(known)] == known:
                return len(known)
        return shared if shared >= MIN_PREFIX else 0

    def _prefix_cache(self, prefix: Ids) -> Any:
        from transformers import DynamicCache

        if self.prefix.entry is None or self.prefix.entry[0] != prefix:
            cache = DynamicCache(config=self.model.config)
            self.model(
                input_ids=torch.tensor([prefix], device=self.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            self.prefix.entry = (prefix, cache)
        return self.prefix.entry[1]


@dataclass(slots=True)
class _Column:
    """A layer's buffers [B, kv_heads, C, D] at the column that one more token of every row goes to."""

    buffers: packed.Pair
    column: int

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor) -> packed.Pair:
        """See packed.Layer."""
        keys, values = self.buffers
        keys[:, :, self.column : self.column + 1] = key_states
        values[:, :, self.column : self.column + 1] = value_states
        return keys[:, :, : self.column + 1], values[:, :, : self.column + 1]


class PackedDecoder:
    """A model that ``packed.packable`` accepts."""

    def __init__(self, model: Any):
        self.model = model
        self._tree: TokenTree | None = None
        self._prompt = packed.KeysValues()
        self._buffers: list[packed.Pair] = []  # a layer's keys and values [B, kv_heads, C, D]
        # [B, C] added to the scores: 0 for the columns of the buffers that a row attends to. A mask of
        # booleans would be turned into this one by every layer.
        self._unseen = torch.empty(0)
        self._length = np.empty(0, dtype=np.int64)  # [B] tokens of a row so far
        self._slots = np.empty(0, dtype=np.int64)  # the buffers' row of each row of the last call
        self._column = self._new_tokens = 0
        self._turn: packed.Pair | None = None

    def prefill(self, prompts: list[Ids], new_tokens: int) -> torch.Tensor:
        self._tree = build_tree([np.array(ids, dtype=np.int64) for ids in prompts])
        self._new_tokens = new_tokens
        keep = self._prompt if new_tokens > 1 else None
        return packed.forward(self.model, self._tree, self._tree.ends(), keep)

    def advance(self, parent: NDArray[np.int64], token: NDArray[np.int64]) -> torch.Tensor:
        if self._buffers:
            self._keep(parent)
        else:
            self._allocate(parent)
        rows = len(self._length)
        column = self._column
        tokens = np.zeros(rows, dtype=np.int64)
        tokens[self._slots] = token
        assert self._turn is not None
        place = torch.from_numpy(self._length)
        turn = self._turn[0].index_select(0, place), self._turn[1].index_select(0, place)
        self._unseen[:, column] = 0
        mask = self._unseen[:, None, None, : column + 1]
        logits = packed.go_on(
            self.model,
            [_Column(pair, column) for pair in self._buffers],
            torch.from_numpy(tokens)[:, None],
            turn,
            mask,
            torch.from_numpy(self._slots) if len(self._slots) < rows else None,
        )
        self._column += 1
        self._length += 1
        return logits

    def _allocate(self, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """Buffers for ``rows`` of the prompts, which may repeat, filled with the prompts' keys and values."""
        assert self._tree is not None
        path = self._tree.path[rows]
        count, width = path.shape
        flat = torch.from_numpy(path).reshape(-1)
        room = width + self._new_tokens - 1
        for pair in self._prompt.layers:
            made = []
            for known in pair:
                buffer = known.new_empty(count, known.shape[1], room, known.shape[2])
                buffer[:, :, :width] = packed.gather(known, flat, count)
                made.append(buffer)
            self._buffers.append((made[0], made[1]))
        self._prompt.layers.clear()
        self._length = self._tree.length[rows].copy()
        self._unseen = torch.full((count, room), -torch.inf)
        self._unseen[:, :width][torch.from_numpy(np.arange(width) < self._length[:, None])] = 0
        self._slots, self._column = np.arange(count), width
        self._turn = packed.rotation(self.model, room + 1)

    def _keep(self, parent: NDArray[np.int64]) -> None:
        """Let the buffers' rows be those of ``parent``; a few that ended may stay, copying costs more."""
        slots = self._slots[parent]
        rows = len(self._length)
        distinct = len(np.unique(slots)) == len(slots)
        if distinct and len(slots) >= (1 - DEAD_SHARE) * rows:
            self._slots = slots
            return
        select = torch.from_numpy(slots)
        used = self._column
        made: list[packed.Pair] = []
        for keys, values in self._buffers:
            pair = []
            for old in (keys, values):
                new = old.new_empty(len(slots), *old.shape[1:])
                torch.index_select(old[:, :, :used], 0, select, out=new[:, :, :used])
                pair.append(new)
            made.append((pair[0], pair[1]))
        self._buffers = made
        self._unseen, self._length = self._unseen[select], self._length[slots]
        self._slots = np.arange(len(slots))


def common_prefix(prompts: Sequence[Ids]) -> int:
    """Length of the longest prefix all prompts share, at least one token short of the shortest."""
    low, high = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    shared = 0
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return shared
