"""One optimizer step on gradients that were accumulated, and when it is left out."""

from __future__ import annotations

import math
from typing import Any

import torch

from repro_rl.dist.ranks import Ranks
from repro_rl.dist.sharding import whole_tensor


def apply_gradients(
    model: Any, optimizer: torch.optim.Optimizer, ranks: Ranks, grad_clip: float, *, finite: bool
) -> float | None:
    """Sum the gradients over the ranks, clip their norm to ``grad_clip``, and take a step.

    ``finite``: whether the loss was, on every rank. Returns the norm before clipping. Returns None, and
    leaves weights and optimizer as they are, when the loss or the norm is NaN or infinite.
    """
    parameters = list(model.parameters())
    ranks.sum_gradients(parameters)
    norm = float(whole_tensor(torch.nn.utils.clip_grad_norm_(parameters, grad_clip)))
    if not (finite and math.isfinite(norm)):
        return None
    optimizer.step()
    return norm
