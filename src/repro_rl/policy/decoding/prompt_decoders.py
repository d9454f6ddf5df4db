"""Decoders for single prompts: prompts to logits, then one decode step after another.

``ModelDecoder`` calls any model of transformers, with its KV cache; ``UncachedDecoder`` does without one.
``PackedDecoder`` runs ``forward.packed`` over the token tree of the prompts, with keys and values in buffers
that are allocated once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from repro_rl.policy.decoding.sampling import DecodeBatch, Decoder
from repro_rl.policy.forward import packed
from repro_rl.policy.forward.padded import logits_at
from repro_rl.policy.forward.tree import TokenTree, build_tree
from repro_rl.policy.forward.tree_attention import gather
from repro_rl.policy.model.capabilities import Batching, Capabilities
from repro_rl.types import Ids

MASK_CELLS = 1 << 26  # most rows x queries x keys of one pass: the attention mask is this large
MIN_PREFIX = 16  # a shorter common prefix costs more to copy than to compute
IDLE_SHARE = 0.2  # of a buffer's rows; more of them are worth the copy that removes them


def passes(blocks: Mapping[int, Ids], longest: int, most_tokens: int) -> Iterator[list[int]]:
    """The rows of ``blocks`` in parts that fit into one forward pass, those with the shortest blocks first.

    ``longest``: columns that a query may see; ``most_tokens``: of a pass, padding included, where a part has
    more than one row.
    """
    rows = sorted(blocks, key=lambda row: (len(blocks[row]), row))
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows):
            queries = (stop + 1 - start) * len(blocks[rows[stop]])
            if queries > most_tokens or queries * longest > MASK_CELLS:
                break
            stop += 1
        yield rows[start:stop]
        start = stop


class PromptDecoder(Decoder, Protocol):
    """A decoder of one batch of distinct prompts."""

    def prefill(self, prompts: list[Ids], new_tokens: int) -> torch.Tensor:
        """Logits [P, V] after every prompt; at most ``new_tokens`` will be sampled from here on."""
        ...


@dataclass(slots=True)
class PrefixCache:
    """The instruction prefix that ``ModelDecoder`` computes once for a set of weights."""

    ids: Ids = ()
    cache: Any = None  # of transformers; None: nothing is cached

    def clear(self) -> None:
        """Call when the weights change."""
        self.ids, self.cache = (), None


class ModelDecoder:
    """Any causal LM of transformers that has one of its caches.

    The longest common prefix of the prompts is computed once, unless the model's ``capabilities`` say that
    padding behind it would change what the model computes.
    """

    def __init__(self, model: Any, prefix: PrefixCache, capabilities: Capabilities):
        self.model, self.prefix, self.capabilities = model, prefix, capabilities
        self.device = next(model.parameters()).device
        self._cache: Any = None
        self._mask = self._position = torch.empty(0)

    def prefill(self, prompts: list[Ids], new_tokens: int) -> torch.Tensor:
        """See PromptDecoder. Prompts are left-padded, behind their common prefix where that is shared."""
        shared = self._shared_length(prompts) if self._shares_prefix(prompts, new_tokens) else 0
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
        return self._forward(
            torch.as_tensor(ids, device=self.device),
            torch.as_tensor(position[:, shared:], device=self.device),
        )

    def advance(self, branches: DecodeBatch) -> torch.Tensor:
        self._select(branches.parent)
        return self._append(torch.as_tensor(branches.token, device=self.device)[:, None])

    def takes(self, lengths: Sequence[int]) -> bool:
        """See BlockDecoder: equal lengths only, since padding between tokens is not exact for every model."""
        return len(set(lengths)) == 1

    def advance_blocks(self, branches: DecodeBatch, blocks: Sequence[Ids]) -> torch.Tensor:
        """See BlockDecoder."""
        self._select(branches.parent)
        return self._append(torch.tensor(blocks, device=self.device))

    def _append(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] after the tokens [B, Q]."""
        rows, size = ids.shape
        self._mask = torch.cat([self._mask, self._mask.new_ones(rows, size)], dim=1)
        position = self._position[:, None] + torch.arange(1, size + 1, device=self.device)
        self._position = position[:, -1]
        return self._forward(ids, position)

    def _select(self, parent: NDArray[np.int64]) -> None:
        """Make the rows of the cache those of ``parent``."""
        if len(parent) != len(self._mask) or not np.array_equal(parent, np.arange(len(self._mask))):
            select = torch.as_tensor(parent, device=self.device)
            if self._unpadded:  # recurrent states can be reordered, but have no batch_select_indices
                self._cache.reorder_cache(select)
            else:
                self._cache.batch_select_indices(select)
            self._mask, self._position = self._mask[select], self._position[select]

    @property
    def _unpadded(self) -> bool:
        return self.capabilities.batching is Batching.EQUAL

    def _forward(self, ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids, self.capabilities.cache_argument: self._cache}
        if self.capabilities.positions:
            inputs["position_ids"] = position
        if not self._unpadded:  # a recurrent layer takes a mask for that of the new tokens alone
            inputs["attention_mask"] = self._mask
        logits: torch.Tensor = self.model(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1]
        return logits

    def _shares_prefix(self, prompts: list[Ids], new_tokens: int) -> bool:
        """Whether a prefix may be shared: where no padding follows it, or the model sees none in between."""
        longest = max(map(len, prompts))
        batching = self.capabilities.batching_of(longest + new_tokens)
        if batching is Batching.LEFT_PADDED:
            return len(min(prompts, key=len)) == longest
        return batching is Batching.PADDED

    def _shared_length(self, prompts: list[Ids]) -> int:
        """Length of the prefix to take from the cache: the cached one when it is most of what is shared.

        At one step of an episode prompts share a little more than the instructions (a step number, say). The
        instructions alone stay valid at every step, so they are computed once for a set of weights.
        """
        shared = common_prefix(prompts)
        cached = self.prefix.ids
        if cached and 0.7 * shared <= len(cached) <= shared and prompts[0][: len(cached)] == cached:
            return len(cached)
        return shared if shared >= MIN_PREFIX else 0

    def _prefix_cache(self, prefix: Ids) -> Any:
        if self.prefix.ids != prefix:
            cache = DynamicCache(config=self.model.config)
            self.model(
                input_ids=torch.tensor([prefix], device=self.device),
                use_cache=True,
                logits_to_keep=1,
                **{self.capabilities.cache_argument: cache},
            )
            self.prefix.ids, self.prefix.cache = prefix, cache
        return self.prefix.cache


class UncachedDecoder:
    """Any causal LM: each step is a forward pass over the whole sequences, padded on the right."""

    def __init__(self, model: Any):
        self.model = model
        self.device = next(model.parameters()).device
        self._sequences: list[Ids] = []

    def prefill(self, prompts: list[Ids], new_tokens: int) -> torch.Tensor:
        """See PromptDecoder."""
        self._sequences = prompts
        return self._forward()

    def advance(self, branches: DecodeBatch) -> torch.Tensor:
        pairs = zip(branches.parent.tolist(), branches.token.tolist(), strict=True)
        self._sequences = [(*self._sequences[parent], token) for parent, token in pairs]
        return self._forward()

    def _forward(self) -> torch.Tensor:
        lengths = np.array([len(ids) for ids in self._sequences])
        ids = np.zeros((len(lengths), lengths.max()), dtype=np.int64)
        for row, sequence in enumerate(self._sequences):
            ids[row, : len(sequence)] = sequence
        columns, column = np.unique(lengths - 1, return_inverse=True)
        logits = logits_at(
            self.model,
            torch.as_tensor(ids, device=self.device),
            torch.as_tensor(columns, device=self.device),
        )
        return logits[torch.arange(len(lengths)), torch.as_tensor(column)]


@dataclass(slots=True)
class _BufferColumn:
    """A layer's buffers, and the column that the next tokens of every row begin at. See packed.LayerKV."""

    buffers: packed.KV  # [B, kv_heads, C, D] each
    column: int

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor) -> packed.KV:
        keys, values = self.buffers
        stop = self.column + key_states.shape[2]
        keys[:, :, self.column : stop] = key_states
        values[:, :, self.column : stop] = value_states
        return keys[:, :, :stop], values[:, :, :stop]


class PackedDecoder:
    """A model that ``packed.packable`` accepts."""

    def __init__(self, model: Any):
        self.model = model
        self._tree: TokenTree | None = None
        self._prompt_kv = packed.TreeKV()
        self._buffers: list[packed.KV] = []  # a layer's keys and values, [B, kv_heads, C, D] each
        # [B, C] added to the scores: 0 for the columns of the buffers that a row attends to, -inf for others.
        # A mask of booleans would be turned into this one by every layer.
        self._mask = torch.empty(0)
        self._length = np.empty(0, dtype=np.int64)  # [B] tokens of a row so far
        self._buffer_row = np.empty(0, dtype=np.int64)  # the buffers' row of each branch of the last step
        self._column = self._new_tokens = 0
        self._rotary: packed.Rotary | None = None  # of all positions

    def prefill(self, prompts: list[Ids], new_tokens: int) -> torch.Tensor:
        """See PromptDecoder: logits [P, V]. A node of the prompts' token tree is computed once."""
        self._tree = build_tree([np.array(ids, dtype=np.int64) for ids in prompts])
        self._new_tokens = new_tokens
        kv = self._prompt_kv if new_tokens > 1 else None
        return packed.forward(self.model, self._tree, self._tree.ends(), kv)

    def advance(self, branches: DecodeBatch) -> torch.Tensor:
        """See Decoder: logits [B, V]. All rows of the buffers run, idle ones as well."""
        if self._buffers:
            self._select(branches.parent)
        else:
            self._allocate(branches.parent)
        rows = len(self._length)
        column = self._column
        self._grow(column + 1)
        tokens = np.zeros(rows, dtype=np.int64)
        tokens[self._buffer_row] = branches.token
        assert self._rotary is not None
        position = torch.from_numpy(self._length)
        rotary = self._rotary[0].index_select(0, position), self._rotary[1].index_select(0, position)
        self._mask[:, column] = 0
        logits = packed.extend(
            self.model,
            [_BufferColumn(kv, column) for kv in self._buffers],
            torch.from_numpy(tokens)[:, None],
            rotary,
            self._mask[:, None, None, : column + 1],
            torch.from_numpy(self._buffer_row) if len(self._buffer_row) < rows else None,
        )
        self._column += 1
        self._length += 1
        return logits

    def takes(self, lengths: Sequence[int]) -> bool:
        """See BlockDecoder: any lengths, since the mask hides the padding."""
        return True

    def advance_blocks(self, branches: DecodeBatch, blocks: Sequence[Ids]) -> torch.Tensor:
        """See BlockDecoder. Blocks are left-padded in the buffers; idle rows append padding alone."""
        if self._buffers:
            self._select(branches.parent)
        else:
            self._allocate(branches.parent)
        rows, size = len(self._length), max(map(len, blocks))
        column, stop = self._column, self._column + size
        self._grow(stop)
        tokens, count = np.zeros((rows, size), dtype=np.int64), np.zeros(rows, dtype=np.int64)
        for row, block in zip(self._buffer_row.tolist(), blocks, strict=True):
            tokens[row, size - len(block) :], count[row] = block, len(block)
        order = np.arange(size) - (size - count[:, None])  # of a token in its block; negative: padding
        assert self._rotary is not None
        position = torch.from_numpy(np.clip(self._length[:, None] + order, 0, None)).reshape(-1)
        rotary = self._rotary[0].index_select(0, position), self._rotary[1].index_select(0, position)
        self._mask[:, column:stop][torch.from_numpy(order >= 0)] = 0
        mask = self._mask[:, None, None, :stop].repeat(1, 1, size, 1)
        mask[..., column:] += torch.full((size, size), -torch.inf).triu(1)
        logits = packed.extend(
            self.model,
            [_BufferColumn(kv, column) for kv in self._buffers],
            torch.from_numpy(tokens),
            rotary,
            mask,
            torch.from_numpy(self._buffer_row) if len(self._buffer_row) < rows else None,
        )
        self._column = stop
        self._length += count
        return logits

    def _grow(self, columns: int) -> None:
        """Give the buffers at least so many columns; what is in them stays."""
        now = self._mask.shape[1]
        if columns <= now:
            return
        columns = max(columns, now + now // 2)

        def grown(old: torch.Tensor) -> torch.Tensor:
            new = old.new_empty(*old.shape[:2], columns, old.shape[3])
            new[:, :, : self._column] = old[:, :, : self._column]
            return new

        self._buffers = [(grown(keys), grown(values)) for keys, values in self._buffers]
        more = self._mask.new_full((len(self._mask), columns - now), -torch.inf)
        self._mask = torch.cat([self._mask, more], dim=1)

    def _allocate(self, prompts: Sequence[int] | NDArray[np.int64]) -> None:
        """Buffers with a row for each of ``prompts``, which may repeat, filled with their keys and values."""
        assert self._tree is not None
        path = self._tree.path[prompts]
        count, width = path.shape
        flat = torch.from_numpy(path).reshape(-1)
        columns = width + self._new_tokens - 1

        def buffer(nodes: torch.Tensor) -> torch.Tensor:
            new = nodes.new_empty(count, nodes.shape[1], columns, nodes.shape[2])
            new[:, :, :width] = gather(nodes, flat, count)
            return new

        self._buffers = [(buffer(keys), buffer(values)) for keys, values in self._prompt_kv.layers]
        self._prompt_kv.layers.clear()
        self._length = self._tree.length[prompts].copy()
        self._mask = torch.full((count, columns), -torch.inf)
        self._mask[:, :width][torch.from_numpy(np.arange(width) < self._length[:, None])] = 0
        self._buffer_row, self._column = np.arange(count), width
        self._rotary = packed.rotary_table(self.model, columns + 1)

    def _select(self, parent: NDArray[np.int64]) -> None:
        """Make the buffers' rows those of ``parent``. A few that ended may stay: copying costs more."""
        chosen = self._buffer_row[parent]
        rows = len(self._length)
        distinct = len(np.unique(chosen)) == len(chosen)
        if distinct and len(chosen) >= (1 - IDLE_SHARE) * rows:
            self._buffer_row = chosen
            return
        select = torch.from_numpy(chosen)
        used = self._column

        def selected(old: torch.Tensor) -> torch.Tensor:
            new = old.new_empty(len(chosen), *old.shape[1:])
            torch.index_select(old[:, :, :used], 0, select, out=new[:, :, :used])
            return new

        self._buffers = [(selected(keys), selected(values)) for keys, values in self._buffers]
        self._mask, self._length = self._mask[select], self._length[chosen]
        self._buffer_row = np.arange(len(chosen))


def common_prefix(prompts: Sequence[Ids]) -> int:
    """Length of the longest prefix all prompts share, at least one token short of the shortest."""
    low, high = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    shared = 0
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return shared
