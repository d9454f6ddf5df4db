"""Gradient checkpointing saves memory and changes nothing else."""

from __future__ import annotations

import pytest
import torch

from repro_rl.config import load_config
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun
from support.models import weights_of

TRAIN = (
    "train={epochs: 1, minibatches: 2, groups: 4, group_size: 4, lr: 0.01, lr_warmup: 0, validate_every: 0}"
)


def test_gradient_checkpointing_changes_nothing_but_memory(warm, tmp_path):
    runs = []
    for more in ("false", "true"):
        config = load_config(
            None,
            [
                *warm.settings,
                TRAIN,
                "policy.packed=false",  # checkpointing is for the model's own forward pass
                f"train.init={warm.model}",
                f"train.gradient_checkpointing={more}",
            ],
        )
        run = RLRun(set_up(config), tmp_path / more)
        layers = [m for m in run.policy.model.modules() if hasattr(m, "gradient_checkpointing")]
        assert layers
        assert all(layer.gradient_checkpointing == (more == "true") for layer in layers)
        runs.append((run.step(), weights_of(run.policy.model)))
    (plain, one), (saving, two) = runs
    assert plain["update/loss"] == pytest.approx(saving["update/loss"], abs=1e-6)
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
