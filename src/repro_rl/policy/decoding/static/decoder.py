"""Batched decoding over a static KV cache: all rows of a batch together, Python out of the way.

For GPUs, where decoding one token takes less time than telling the device to. Prompts are read in ordinary
forward passes. From then on every step is one CUDA graph (see ``static.step``) that samples on the device.
Python looks only now and then whether all rows have ended. On a CPU the same steps run without graphs.
Sampled tokens are those of ``ModelDecoder`` for the same keys, up to the last bits of the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.policy.base import AnswerTokens, Keys, SamplingSettings
from repro_rl.policy.decoding.prompt_decoders import MIN_PREFIX, common_prefix, passes
from repro_rl.policy.decoding.row_cache import left_padded
from repro_rl.policy.decoding.sampling import SampledRow
from repro_rl.policy.decoding.static.cache import StaticCache, row_bucket, width_bucket
from repro_rl.policy.decoding.static.step import (
    STEPS_A_CHECK,
    GraphedSteps,
    StepState,
    build_runner,
    grouped_attention,
)
from repro_rl.policy.model.adapter import adapter_active
from repro_rl.policy.model.cast_weights import CastLinears
from repro_rl.random_streams import uniforms
from repro_rl.types import Ids

FIRST_LIMIT = 64  # sampled tokens that are allocated at first
WIDTH_STEP = 64  # on a GPU a pass over prompts sees a multiple of so many columns, as attention kernels like


@dataclass(slots=True, frozen=True)
class StaticSettings:
    """How one model is decoded."""

    tokens: AnswerTokens  # what can be sampled, and what ends an answer
    pad_id: int
    mixed: bool  # forward passes run under bfloat16 autocast
    pass_tokens: int  # cells (rows x width) of one pass over prompts
    shape: tuple[int, int] = (0, 0)  # rows and columns of the cache to begin with


class StaticDecoder:
    """Rows of tokens that one model continues. ``lengths``: tokens in the cache, by row."""

    def __init__(self, model: Any, settings: StaticSettings, casts: CastLinears | None):
        self.model, self.settings, self.casts = model, settings, casts
        self.device: torch.device = next(model.parameters()).device
        self.runner = build_runner(self.device)
        self.lengths: list[int] = []
        dtype = torch.bfloat16 if settings.mixed else None
        self._cache = StaticCache(model.config.num_hidden_layers, dtype, settings.shape)
        self._state = StepState(0, 0, settings.tokens, self.device)
        self._addresses: tuple[int, ...] = ()  # of the weights
        self._check_every = STEPS_A_CHECK if self.device.type == "cuda" else 1
        self._width_step = WIDTH_STEP if self.device.type == "cuda" else 1

    def begin(self, blocks: Mapping[int, Ids]) -> torch.Tensor:
        """Read the first tokens of rows, by row; logits [N, V] after them, in the order of ``blocks``.

        Equal beginnings are read once: of all rows together, and of rows that are equal altogether.
        """
        firsts: dict[Ids, int] = {}
        for row, block in blocks.items():
            self._admit(row)
            firsts.setdefault(block, row)
        texts, rows = list(firsts), list(firsts.values())
        shared = common_prefix(texts) if len(texts) > 1 else 0
        if shared >= MIN_PREFIX:
            self.append({rows[0]: texts[0][:shared]})
            self._copy([(rows[0], row) for row in rows[1:]])
        else:
            shared = 0
        logits = self.append({row: text[shared:] for text, row in firsts.items()})
        order = {row: index for index, row in enumerate(rows)}
        sources = [firsts[block] for block in blocks.values()]
        self._copy([(source, row) for source, row in zip(sources, blocks, strict=True) if source != row])
        return logits[torch.tensor([order[source] for source in sources], device=self.device)]

    @torch.no_grad()
    def append(self, blocks: Mapping[int, Ids]) -> torch.Tensor:
        """Append tokens to rows, by row; logits [N, V] after the last of each, in the order of ``blocks``."""
        rows = list(blocks)
        # Padding lies behind a row's end.
        longest = max(self.lengths[row] for row in rows) + max(map(len, blocks.values()))
        self._reserve(longest)
        parts = list(self._passes(blocks, longest))
        with self._pass_context():
            logits = torch.cat([self._read(part, blocks) for part in parts])
        for row, block in blocks.items():
            self.lengths[row] += len(block)
        place = {row: index for index, row in enumerate(chain.from_iterable(parts))}
        return logits[torch.tensor([place[row] for row in rows], device=self.device)]

    @torch.no_grad()
    def sample(
        self, rows: Sequence[int], logits: torch.Tensor, keys: Keys, settings: SamplingSettings
    ) -> list[SampledRow]:
        """Continue ``rows`` from ``logits`` [N, V] until their stop tokens or the length limit.

        The last token of an answer is not read into the cache.
        """
        limit = settings.max_new_tokens
        count, longest = row_bucket(max(rows) + 1), max(self.lengths[row] for row in rows)
        self._reserve(max(longest + limit, max(self.lengths) + 1))
        self._prepare(count, rows, keys, settings)
        path = adapter_active(self.model), settings.temperature == 0, settings.top_p
        with self._step_context():
            self._state.record(self._spread(logits, rows, count), settings)
            done = 1
            while done < limit and not self.runner.ended(self._state.live[:count]):
                steps = min(self._check_every, limit - done)
                width = width_bucket(longest + done + steps - 1)

                def step(width: int = width) -> None:
                    self._step(count, width, settings)

                self.runner.run((count, width, *path), step, steps)
                done += steps
        self.runner.forget()
        return self._collect(rows, done)

    def move(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy rows, by (old, new), and empty the old ones."""
        self._copy(pairs)
        for old, _ in pairs:
            self.lengths[old] = 0

    def clear(self) -> None:
        """Empty all rows; the memory stays allocated."""
        self.lengths = []

    def bytes(self) -> int:
        """Memory of the KV cache."""
        return self._cache.bytes()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the KV cache."""
        return self._cache.shape

    # Rows ---------------------------------------------------------------------------------------------

    def _admit(self, row: int) -> None:
        self.lengths += [0] * (row + 1 - len(self.lengths))
        self.lengths[row] = 0

    def _copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        if pairs:
            self._reserve(1)
            self._cache.copy(pairs, max(self.lengths[old] for old, _ in pairs), self.device)
            for old, new in pairs:
                self.lengths[new] = self.lengths[old]

    def _reserve(self, columns: int) -> None:
        if self._cache.reserve(len(self.lengths), columns):
            self._forget_addresses()

    def _forget_addresses(self) -> None:
        if isinstance(self.runner, GraphedSteps):
            self.runner.drop()

    # Passes over prompts --------------------------------------------------------------------------------

    def _passes(self, blocks: Mapping[int, Ids], longest: int) -> Iterator[list[int]]:
        """The rows in parts that fit into one pass, those with blocks of similar lengths together.

        The rows of a part are in order: where none is missing between them, the cache is not copied.
        """
        for rows in passes(blocks, longest, self.settings.pass_tokens):
            yield sorted(rows)

    def _read(self, rows: list[int], blocks: Mapping[int, Ids]) -> torch.Tensor:
        """One forward pass, blocks left-padded."""
        own = {row: blocks[row] for row in rows}
        ids, columns = left_padded(rows, own, self.lengths, self.settings.pad_id)
        now = self._cache.now
        now.rows = torch.tensor(rows, device=self.device)
        now.columns = torch.as_tensor(columns, device=self.device)
        # What is allocated is a multiple of the step.
        now.width = -(-(int(columns.max()) + 1) // self._width_step) * self._width_step
        now.first = rows[0] if rows == list(range(rows[0], rows[0] + len(rows))) else None
        tokens = torch.as_tensor(ids, device=self.device)
        return self._forward(tokens, now.mask(self._mask_dtype), now.columns)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=self._cache.tensors,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits

    @property
    def _mask_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.settings.mixed else self.model.dtype

    @contextmanager
    def _pass_context(self) -> Iterator[None]:
        """Autocast keeps no copies of weights: a graph would go on reading one that is freed."""
        low = torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)
        casts = self.casts.in_place() if self.casts is not None else nullcontext()
        with low if self.settings.mixed else nullcontext(), casts:
            yield

    # Decode steps ---------------------------------------------------------------------------------------

    def _prepare(self, count: int, rows: Sequence[int], keys: Keys, settings: SamplingSettings) -> None:
        """Set the state to the beginning of an answer of ``rows``, among the first ``count``."""
        state, limit = self._state, settings.max_new_tokens
        if state.rows < count or state.limit < limit:
            tokens = max(state.limit, FIRST_LIMIT, 1 << (limit - 1).bit_length())
            self._state = state = StepState(max(state.rows, count), tokens, self.settings.tokens, self.device)
            self._forget_addresses()
        addresses = tuple(parameter.data_ptr() for parameter in self.model.parameters())
        if addresses != self._addresses:
            self._forget_addresses()
            self._addresses = addresses
        uniform = np.zeros((limit, count))
        uniform[:, rows] = [uniforms(keys, index) for index in range(limit)]
        lengths, live = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool)
        lengths[: len(self.lengths)] = self.lengths[:count]
        live[list(rows)] = True
        state.uniform[:limit, :count] = torch.as_tensor(uniform, device=self.device)
        state.length[:count] = torch.as_tensor(lengths, device=self.device)
        state.live[:count] = torch.as_tensor(live, device=self.device)
        state.token[:count] = self.settings.pad_id
        state.temperature.fill_(settings.temperature or 1.0)
        state.index.zero_()

    @contextmanager
    def _step_context(self) -> Iterator[None]:
        """Graphs are captured, replayed and waited for on the streams of the current device."""
        here = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with here, self._pass_context(), grouped_attention(self.model):
            yield

    def _step(self, count: int, width: int, settings: SamplingSettings) -> None:
        """Read the newest token of the first ``count`` rows and sample the next.

        A row that has ended writes behind its end again and again, where nothing is ever read.
        """
        state, now = self._state, self._cache.now
        now.rows, now.columns = state.row[:count], state.length[:count, None]
        now.width, now.first = width, 0
        mask = state.mask(count, width, self._mask_dtype)
        logits = self._forward(state.token[:count, None], mask, state.length[:count, None])
        state.length[:count] += state.live[:count]
        state.record(logits, settings)

    def _spread(self, logits: torch.Tensor, rows: Sequence[int], count: int) -> torch.Tensor:
        """[count, V]: the logits of ``rows``, and zeros between them."""
        spread = logits.new_zeros(count, logits.shape[-1])
        spread[torch.tensor(rows, device=self.device)] = logits
        return spread

    def _collect(self, rows: Sequence[int], done: int) -> list[SampledRow]:
        """What was sampled, up to the first stop token of every row; the rows' new lengths."""
        state = self._state
        select = torch.tensor(rows, device=self.device)
        tokens, logprobs, entropy = (
            values[:done].index_select(1, select).T.cpu().numpy()
            for values in (state.tokens, state.logprobs, state.entropy)
        )
        stops = np.isin(tokens, list(self.settings.tokens.stop))
        sampled = []
        for index, row in enumerate(rows):
            finished = bool(stops[index].any())
            size = int(stops[index].argmax()) + 1 if finished else done
            self.lengths[row] += size - 1
            sampled.append(
                _row(tokens[index, :size], logprobs[index, :size], entropy[index, :size], finished)
            )
        return sampled


def _row(
    tokens: NDArray[np.int64], logprobs: NDArray[np.float32], entropy: NDArray[np.float32], finished: bool
) -> SampledRow:
    mean = float(entropy.astype(np.float64).mean())
    return SampledRow(tuple(tokens.tolist()), logprobs.copy(), mean, finished)
