"""Conversations that keep their rows of a static KV cache between turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from repro_rl.policy.base import Keys, SamplingSettings
from repro_rl.policy.decoding.guided import guided_plan
from repro_rl.policy.decoding.sampling import BatchSampling
from repro_rl.policy.decoding.static.answers import sample_static
from repro_rl.policy.decoding.static.cache import fitting_rows, row_bucket
from repro_rl.policy.decoding.static.decoder import StaticDecoder
from repro_rl.policy.decoding.static.pool import StaticDecoders
from repro_rl.policy.model.memory import SAMPLING, memory_explained
from repro_rl.policy.model.mode import evaluating
from repro_rl.policy.token_policy import CachedConversations
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids


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
    @memory_explained("sampling", SAMPLING)
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
