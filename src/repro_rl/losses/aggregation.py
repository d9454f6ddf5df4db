"""How the losses of tokens become one number (the modes of verl)."""

from __future__ import annotations

from typing import Any, get_args

import torch

from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.losses.named import Aggregation
from repro_rl.losses.tokens import check_shapes

MODES: tuple[Aggregation, ...] = get_args(Aggregation)
EPSILON = 1e-8  # added to the tokens of a row


def token_weight(mode: str, *, tokens: float, rows: float, scale: float | None = None) -> Any:
    """The weight of a token's loss, as a function of its row's tokens ``k`` (a number or a tensor).

    ``tokens``, ``rows``: of the whole mini-batch, over all micro-batches and processes; rows without tokens
    do not count. The modes:

    - token-mean: 1 / tokens
    - seq-mean-token-mean: 1 / (rows (k + 1e-8))
    - seq-mean-token-sum: 1 / rows
    - seq-mean-token-sum-norm: 1 / (rows * scale), scale a constant number of tokens
    - token-sum: 1

    Raises ConfigError for an unknown mode, and without a scale where it is needed.
    """
    rows, tokens = max(rows, 1), max(tokens, 1)
    if mode == "token-mean":
        return lambda k: 1 / tokens
    if mode == "seq-mean-token-mean":
        return lambda k: 1 / ((k + EPSILON) * rows)
    if mode == "seq-mean-token-sum":
        return lambda k: 1 / rows
    if mode == "token-sum":
        return lambda k: 1.0
    if mode != "seq-mean-token-sum-norm":
        raise ConfigError(f"unknown aggregation {mode!r}{did_you_mean(mode, MODES)}")
    if scale is None:
        raise ConfigError("aggregation 'seq-mean-token-sum-norm' needs scale, a constant number of tokens")
    return lambda k: 1 / (rows * scale)


def aggregate(losses: torch.Tensor, row: torch.Tensor, mode: str, scale: float | None = None) -> torch.Tensor:
    """One number from token losses [T] and the row of each [T]; 0 without tokens.

    Raises ConfigError for unequal shapes, and what ``token_weight`` raises.
    """
    check_shapes(losses=losses, row=row)
    count = torch.bincount(row) if row.numel() else row
    rows = int((count > 0).sum())
    weight = token_weight(mode, tokens=losses.numel(), rows=rows, scale=scale)
    if not losses.numel():
        return losses.sum()
    sizes = count.index_select(0, row).to(losses.dtype)
    total: torch.Tensor = (losses * weight(sizes)).sum()
    return total
