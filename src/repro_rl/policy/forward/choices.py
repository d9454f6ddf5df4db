"""Tokens that are one of a few ids, as in guided answers: those ids as a table, in sampler and trainer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from repro_rl.types import Ids

EXCLUDED = -1e30  # logit of what may not be drawn: its probability is 0, and no product with it is NaN


def padded_choices(sets: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sets of ids as one table [N, M], and where it is only padded [N, M]."""
    width = max(map(len, sets))
    table = torch.tensor([[*ids, *ids[:1] * (width - len(ids))] for ids in sets])
    size = torch.tensor([len(ids) for ids in sets])
    return table, torch.arange(width) >= size[:, None]
