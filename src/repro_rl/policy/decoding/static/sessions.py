"""Which models decode over a static KV cache, and a policy's decoders: idle, or in use by a session."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from repro_rl.errors import ConfigError
from repro_rl.policy.base import Keys, SamplingSettings
from repro_rl.policy.decoding.guided import guided_plan
from repro_rl.policy.decoding.sampling import (
    BatchSampling,
    DecodeBatch,
    SampledRow,
    check_finite_entropy,
    sample_rows,
)
from repro_rl.policy.decoding.static.cache import fitting_rows, row_bucket
from repro_rl.policy.decoding.static.decoder import StaticDecoder, StaticSettings
from repro_rl.policy.model.capabilities import keeps_cache
from repro_rl.policy.model.cast_weights import CastLinears
from repro_rl.policy.model.mode import evaluating
from repro_rl.policy.token_policy import CachedConversations
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids

StaticSwitch = Literal["auto", "on", "off"]

KEPT_SHARE = 0.3  # of a GPU's memory that caches and weight copies may keep during an update
CACHE_SHARE = 0.5  # of a GPU's free memory that the KV cache of one batch may take


def use_static(switch: StaticSwitch, model: Any) -> bool:
    """Whether ``model`` decodes over a static cache.

    "auto": on a GPU, where every layer has full attention that takes our masks and the weights are plain
    tensors. Raises ConfigError for "on" where that is not so.
    """
    if switch == "off":
        return False
    parameters = list(model.parameters())
    plain = all(type(p) is torch.nn.Parameter for p in parameters)  # neither sharded nor quantised
    possible = plain and keeps_cache(model)
    if switch == "on" and not possible:
        raise ConfigError(
            f"policy.static_cache is on, but {type(model).__name__} cannot decode that way: it needs full "
            "attention in every layer, policy.attention sdpa or eager, and weights that are neither sharded "
            "nor quantised. Use policy.static_cache=auto."
        )
    return possible and (switch == "on" or parameters[0].device.type == "cuda")


@dataclass(slots=True)
class StaticDecoders:
    """The decoders of one policy. A decoder has one user at a time, and is kept for the next."""

    codec: TextCodec
    mixed: bool  # forward passes run under bfloat16 autocast
    pass_tokens: int  # cells of one pass over prompts
    cache_tokens: int  # of one batch's KV cache
    _model: Any = None  # whose decoders these are
    _casts: CastLinears | None = None
    _stale: bool = False  # the copies in ``_casts`` are of older weights
    _idle: list[StaticDecoder] = field(default_factory=list)
    _shape: tuple[int, int] = (0, 0)  # of the largest cache so far: growing would drop a decoder's graphs

    def acquire(self, model: Any) -> StaticDecoder:
        """An empty decoder of ``model``, for its present weights."""
        if model is not self._model:
            self.clear()
            self._model = model
        if self.mixed and self._casts is None:
            self._casts = CastLinears(model)
        elif self._casts is not None and self._stale:
            self._casts.refresh()
        self._stale = False
        if self._idle:
            return self._idle.pop()
        settings = StaticSettings(
            self.codec.answer_tokens, self.codec.pad_id, self.mixed, self.pass_tokens, self._shape
        )
        return StaticDecoder(model, settings, self._casts)

    def release(self, decoder: StaticDecoder) -> None:
        """Keep a decoder that is no longer used for the next one who asks."""
        decoder.clear()
        self._shape = max(self._shape, decoder.shape, key=math.prod)
        if decoder.model is self._model and decoder.casts is self._casts:
            self._idle.append(decoder)

    def weights_changed(self) -> None:
        """The model has other weights at the same addresses."""
        self._stale = True

    def clear(self) -> None:
        """Free all memory."""
        self._idle.clear()
        self._casts = self._model = None
        self._shape = (0, 0)

    def free_for_update(self, share: float = KEPT_SHARE) -> None:
        """Free the memory on a GPU, unless it is at most this share of it: then graphs need no new capture.

        Caches, copies of weights and the scratch memory of graphs count.
        """
        held = sum(decoder.bytes() + decoder.runner.bytes() for decoder in self._idle)
        held += self._casts.bytes() if self._casts is not None else 0
        if self._idle and self._idle[0].device.type == "cuda":
            _, total = torch.cuda.mem_get_info(self._idle[0].device)
            if held > share * total:
                self._idle.clear()
                self._casts = None  # the shape stays: the next decoder begins with it
                torch.cuda.empty_cache()

    def batch_cells(self, model: Any) -> int:
        """Cells (rows x width, as allocated) of the largest batch that is decoded together."""
        device = next(model.parameters()).device
        if device.type != "cuda":
            return self.cache_tokens
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free += sum(decoder.bytes() for decoder in self._idle)  # the batch will lie in one of them
        fits = int(CACHE_SHARE * free / token_bytes(model, self.mixed))
        return max(self.pass_tokens, min(self.cache_tokens, fits))


def token_bytes(model: Any, mixed: bool = False) -> int:
    """Memory of one token's keys and values in all layers."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    item = 2 if mixed else model.dtype.itemsize
    return int(2 * config.num_hidden_layers * heads * size * item)


def sample_static(
    decoder: StaticDecoder,
    rows: Sequence[int],
    logits: torch.Tensor,
    keys: Keys,
    batch: BatchSampling,
) -> list[SampledRow]:
    """Answers of ``rows`` of a decoder, from ``logits`` [N, V].

    Guided answers have few decode steps, which are run from Python. Raises NonFiniteError, naming the model.
    """
    if batch.plan is None:
        sampled = decoder.sample(rows, logits, keys, batch.settings)
        check_finite_entropy(np.array([row.entropy for row in sampled]), batch.model_name)
        return sampled
    branch = np.arange(len(rows))
    steps = _RowSteps(decoder, rows)
    return sample_rows(steps, logits, branch, keys, batch)


@dataclass(slots=True, frozen=True)
class _RowSteps:
    """Decode steps over rows of a static cache, each a branch of its own. See BlockDecoder."""

    decoder: StaticDecoder
    rows: Sequence[int]  # of the cache, in the order of the batch

    def takes(self, lengths: Sequence[int]) -> bool:
        return True

    def advance(self, branches: DecodeBatch) -> torch.Tensor:
        return self.advance_blocks(branches, [(token,) for token in branches.token.tolist()])

    def advance_blocks(self, branches: DecodeBatch, blocks: Sequence[Ids]) -> torch.Tensor:
        row = dict(zip(branches.branch.tolist(), branches.rows.tolist(), strict=True))  # of the batch
        return self.decoder.append({self.rows[row[b]]: block for b, block in enumerate(blocks)})


class StaticSession(CachedConversations):
    """Conversations that keep their rows of a static cache between turns. See ChatSession.

    All rows that answer in a turn are decoded together. First turns that begin alike share the pass over
    their common part. The decoder is borrowed with the first turn and given back with the last conversation.
    """

    def __init__(self, model: Any, decoders: StaticDecoders, name: Callable[[], str]):
        """``name``: what the weights are, for messages."""
        super().__init__(decoders.codec)
        self.model, self.decoders, self.name = model, decoders, name
        self._decoder: StaticDecoder | None = None
        self._rows: dict[int, int] = {}  # conversation -> its row of the cache

    @torch.no_grad()
    def _answer(
        self,
        rows: Sequence[int],
        turns: Sequence[Ids],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None,
    ) -> list[Completion]:
        plan = guided_plan(self.codec, forms, settings)
        if self._decoder is None:
            self._decoder = self.decoders.acquire(self.model)
        decoder = self._decoder
        with evaluating(self.model):
            self._close_gaps(decoder)
            logits = self._read(decoder, rows, turns if plan is None else plan.begin(turns))
            lines = [self._rows[name] for name in rows]
            batch = BatchSampling(settings, self.codec.answer_tokens, self.name(), plan)
            sampled = sample_static(decoder, lines, logits, keys, batch)
        return [row.completion(turn, self.codec) for row, turn in zip(sampled, turns, strict=True)]

    def most_rows(self, longest: int) -> int:
        """See Conversations: as many as the memory for one batch holds."""
        return fitting_rows(self.decoders.batch_cells(self.model), longest)

    def close(self, row: int) -> None:
        """See ChatSession."""
        super().close(row)
        freed = self._rows.pop(row, None)
        if self._decoder is None or freed is None:
            return
        self._decoder.lengths[freed] = 0
        if not self._rows:
            self.decoders.release(self._decoder)
            self._decoder = None

    def _read(self, decoder: StaticDecoder, names: Sequence[int], turns: Sequence[Ids]) -> torch.Tensor:
        """Append the turns; logits [N, V] after them, in the order of ``names``."""
        first: dict[int, Ids] = {}
        later: dict[int, Ids] = {}
        used = set(self._rows.values())
        free = (row for row in range(len(used) + len(names)) if row not in used)
        for name, turn in zip(names, turns, strict=True):
            ids = self.conversation(name).ids
            if name in self._rows:
                row = self._rows[name]
                later[row] = (*ids[decoder.lengths[row] :], *turn)  # an answer's last token is not cached yet
            else:
                self._rows[name] = row = next(free)
                first[row] = (*ids, *turn)
        parts = ([decoder.begin(first)] if first else []) + ([decoder.append(later)] if later else [])
        order = {row: index for index, row in enumerate((*first, *later))}
        select = torch.tensor([order[self._rows[name]] for name in names], device=decoder.device)
        return torch.cat(parts)[select]

    def _close_gaps(self, decoder: StaticDecoder) -> None:
        """Move conversations to low rows once a smaller batch would hold them: steps run all rows below."""
        rows = sorted(self._rows.values())
        if not rows or row_bucket(rows[-1] + 1) == row_bucket(len(rows)):
            return
        gaps = sorted(set(range(len(rows))) - set(rows))
        moves = dict(zip(rows[-len(gaps) :], gaps, strict=True))
        decoder.move(list(moves.items()))
        self._rows = {name: moves.get(row, row) for name, row in self._rows.items()}
