"""The choice of the optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repro_rl.errors import ConfigError
from repro_rl.train import build_optimizer
from support.models import load_cpu


def test_the_8bit_optimizer_is_not_for_cpus(tiny_folder):
    model = load_cpu(tiny_folder).model
    how: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.0}
    assert isinstance(build_optimizer("adamw", model, **how), torch.optim.AdamW)
    with pytest.raises(ConfigError, match=r"adamw8bit is not available on cpu.*train\.optimizer=adamw"):
        build_optimizer("adamw8bit", model, **how)
