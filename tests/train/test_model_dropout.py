"""Training a model whose configuration has dropout: the same distribution as in sampling, and repeatable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from repro_rl.config import load_config
from repro_rl.train import run_training, run_warmup
from support.foreign_models import save_foreign
from support.models import equal_weights, weights_of

TRAIN = (
    "train={epochs: 1, minibatches: 2, groups: 2, group_size: 3, lr: 0.001, lr_warmup: 0, validate_every: 0, "
    "save_every: 1, keep: 9}"
)
ALONE = "method.rehearsal=0"  # no warmup here made the model
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "opt": {
        "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "layerdrop": 0.3,
        "max_position_embeddings": 512, "word_embed_proj_dim": 32,
    },
}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def foreign(request, warm, tmp_path) -> Path:
    return save_foreign(tmp_path / "start", warm.model, request.param, **FAMILIES[request.param])


def trained(
    settings: list[str], out: Path, iterations: int
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    config = load_config(None, [*settings, f"train.iterations={iterations}"])
    return weights_of(run_training(config, out, rows.append).policy.model), rows


def test_the_first_step_is_on_policy_and_a_run_can_be_repeated_and_resumed(foreign, warm, tmp_path):
    settings = [*warm.settings, TRAIN, ALONE, f"train.init={foreign}", f"policy.model={foreign}"]
    torch.manual_seed(1)
    whole, rows = trained(settings, tmp_path / "whole", 2)
    assert rows[0]["update/mismatch"] < 1e-5
    assert rows[0]["update/clip_fraction"] == 0
    assert 0 <= rows[0]["update/kl"] < 1e-3  # of the second mini-batch, after one step
    torch.manual_seed(2)
    trained(settings, tmp_path / "parts", 1)
    torch.manual_seed(3)
    parts, _ = trained(settings, tmp_path / "parts", 2)
    assert equal_weights(whole, parts)


def test_the_dropout_of_an_adapter_is_a_setting_and_seeded(foreign, warm, tmp_path):
    """Its first step is on-policy too: a new adapter changes nothing, whatever it drops."""
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    lora = "policy.lora={rank: 2, dropout: 0.5}"
    settings = [*warm.settings, TRAIN, ALONE, lora, f"train.init={foreign}", f"policy.model={foreign}"]
    torch.manual_seed(1)
    whole, rows = trained(settings, tmp_path / "whole", 2)
    assert rows[0]["update/mismatch"] < 1e-5
    torch.manual_seed(2)
    trained(settings, tmp_path / "parts", 1)
    torch.manual_seed(3)
    parts, _ = trained(settings, tmp_path / "parts", 2)
    assert equal_weights(whole, parts)


def test_warmup_is_repeatable_too(foreign, warm, tmp_path):
    config = load_config(None, [*warm.settings, f"policy.model={foreign}", "warmup.updates=3"])
    rows: list[list[dict[str, Any]]] = [[], []]
    for seed, found in enumerate(rows):
        torch.manual_seed(seed)
        run_warmup(config, warm.demos, tmp_path / f"{seed}", found.append)
    assert rows[0] == rows[1]
