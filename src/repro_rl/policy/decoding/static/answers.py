"""Answers of rows of a static KV cache: free ones on the device, guided ones step by step from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from repro_rl.policy.base import Keys
from repro_rl.policy.decoding.sampling import (
    BatchSampling,
    DecodeBatch,
    SampledRow,
    check_finite_entropy,
    sample_rows,
)
from repro_rl.policy.decoding.static.decoder import StaticDecoder
from repro_rl.types import Ids


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
