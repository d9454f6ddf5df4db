"""The optimizers that ``train.optimizer`` names."""

from __future__ import annotations

from typing import Any

import torch

from repro_rl.errors import ConfigError, MissingDependencyError, install_command


def build_optimizer(
    name: str, model: Any, *, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer over the weights of ``model`` that are trained.

    "adamw8bit" keeps both moments in 8 bits (bitsandbytes). Raises ConfigError for it on a CPU, and
    MissingDependencyError where the package is absent.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay)
    if name != "adamw8bit":
        raise ConfigError(f"train.optimizer is {name!r}; use adamw or adamw8bit.")
    if parameters and parameters[0].device.type != "cuda":
        raise ConfigError(
            f"train.optimizer=adamw8bit is not available on {parameters[0].device.type}: it needs a CUDA "
            "GPU. Use train.optimizer=adamw."
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise MissingDependencyError(
            f"train.optimizer=adamw8bit needs bitsandbytes: {install_command('8bit')}"
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, lr=lr, betas=betas, weight_decay=weight_decay)
    return optimizer
