"""What every policy loss reads: sampled tokens in a flat order, with the row that each belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from repro_rl.errors import ConfigError

MAX_LOG_RATIO = 20.0  # log-ratios are clamped here before they become ratios (verl)


@dataclass(slots=True)
class LossTokens:
    """T sampled tokens of several rows. Everything is [T]. Raises ConfigError for other shapes."""

    log_prob: torch.Tensor  # of the policy in training; carries the gradient
    old_log_prob: torch.Tensor  # of the policy that sampled
    advantages: torch.Tensor
    row: torch.Tensor  # int64: the sequence of each token

    def __post_init__(self) -> None:
        if self.log_prob.dim() != 1:
            raise ConfigError(f"log_prob has the shape {tuple(self.log_prob.shape)}; give one row of tokens.")
        check_shapes(
            log_prob=self.log_prob,
            old_log_prob=self.old_log_prob,
            advantages=self.advantages,
            row=self.row,
        )

    @property
    def ratio(self) -> torch.Tensor:
        """pi / pi_old of each token, [T], the log-ratio clamped to +-``MAX_LOG_RATIO``."""
        difference = self.log_prob - self.old_log_prob
        return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


@dataclass(slots=True, frozen=True)
class Loss:
    """A policy loss. Both functions take ``LossTokens`` and, by name, the settings of its ``PolicyLoss``."""

    loss: Callable[..., torch.Tensor]  # [T], of each token; linear in advantages of one sign
    clipped: Callable[..., torch.Tensor]  # [T] bool, tokens that a bound holds; by the sign of the advantage


def check_shapes(**tensors: torch.Tensor) -> None:
    """Raise ConfigError unless all have one shape: torch would spread one over the other."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ConfigError(f"These must have one shape, a value for each token: {shapes}.")


def row_means(values: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """[T], for each token the mean of its row."""
    size = int(row.max()) + 1 if row.numel() else 0
    total = values.new_zeros(size).index_add(0, row, values)
    count = values.new_zeros(size).index_add(0, row, torch.ones_like(values))
    return (total / count.clamp(min=1)).index_select(0, row)
