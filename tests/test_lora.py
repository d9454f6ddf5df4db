"""Adapters beside frozen weights, gradient checkpointing, and the choice of the optimizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from command import run_command
from repro_rl.config import load_config
from repro_rl.errors import CheckpointError, ConfigError, MissingDependencyError
from repro_rl.policy import TransformersPolicy
from repro_rl.train.build import load_policy
from repro_rl.train.checkpoint import find_model
from repro_rl.train.loop import RLRun, run_training
from repro_rl.train.optimizers import build_optimizer

TRAIN = "train={epochs: 1, minibatches: 2, groups: 4, group_size: 4, lr: 0.01, lr_warmup: 0, eval_every: 0}"
LORA = "policy.lora={rank: 4}"


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.state_dict().items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# Without peft -------------------------------------------------------------------------------------


def test_without_peft_the_error_names_the_install(warm, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    config = load_config(None, [*warm.settings, LORA])
    with pytest.raises(MissingDependencyError, match=r"pip install 'repro-rl\[lora\]'"):
        load_policy(config, warm.model, training=True)
    load_policy(config, warm.model)  # to act with, nothing is needed


def test_the_8bit_optimizer_is_not_for_cpus(tiny_folder):
    model = TransformersPolicy.load(tiny_folder, device="cpu").model
    how: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.0}
    assert isinstance(build_optimizer("adamw", model, **how), torch.optim.AdamW)
    with pytest.raises(ConfigError, match=r"adamw8bit is not available on cpu.*train\.optimizer=adamw"):
        build_optimizer("adamw8bit", model, **how)


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
        run = RLRun(config, tmp_path / more)
        layers = [m for m in run.policy.model.modules() if hasattr(m, "gradient_checkpointing")]
        assert layers
        assert all(layer.gradient_checkpointing == (more == "true") for layer in layers)
        runs.append((run.step(), weights(run.policy.model)))
    (plain, one), (saving, two) = runs
    assert plain["update/loss"] == pytest.approx(saving["update/loss"], abs=1e-6)
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


# With peft ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted(warm, tmp_path_factory) -> dict[str, Any]:
    """Three iterations with an adapter."""
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    out = tmp_path_factory.mktemp("lora") / "run"
    settings = [*warm.settings, TRAIN, LORA, f"train.init={warm.model}", "train.save_every=1"]
    config = load_config(None, [*settings, "train.iterations=3", "train.keep=9"])
    rows: list[dict[str, Any]] = []
    run = run_training(config, out, rows.append)
    return {"settings": settings, "out": out, "rows": rows, "run": run}


def test_only_the_adapter_is_trained(adapted, warm):
    model = adapted["run"].policy.model
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    start = weights(TransformersPolicy.load(warm.model, device="cpu").model)
    now = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in weights(model).items()
        if "lora_" not in name
    }
    assert equal(start, now)
    assert any(p.abs().max() > 0 for name, p in model.named_parameters() if "lora_B" in name)


def test_the_reference_is_the_warm_start(adapted, warm):
    """With the adapter off the model computes what the warm start computes, bit for bit; KL starts at 0."""
    run = adapted["run"]
    ids = torch.tensor([run.policy.encode("progress")[:1] * 5])
    base = TransformersPolicy.load(warm.model, device="cpu").model
    with torch.no_grad():
        reference = run.updater.reference(input_ids=ids).logits
        assert torch.equal(reference, base(input_ids=ids).logits)
        assert not torch.equal(reference, run.policy.model(input_ids=ids).logits)
    first, *_, last = adapted["rows"]
    assert 0 <= first["update/kl"] < last["update/kl"]
    assert last["update/mismatch"] < 1e-4


def test_a_continued_run_ends_with_the_same_weights(adapted, tmp_path):
    config = load_config(None, [*adapted["settings"], "train.iterations=1", "train.keep=9"])
    run_training(config, tmp_path / "run")
    config = load_config(None, [*adapted["settings"], "train.iterations=3", "train.keep=9"])
    again = run_training(config, tmp_path / "run")
    assert equal(weights(again.policy.model), weights(adapted["run"].policy.model))


def test_dropout_is_seeded(adapted, tmp_path):
    settings = [*adapted["settings"], "policy.lora={rank: 4, dropout: 0.3}", "train.keep=9"]
    whole = run_training(load_config(None, [*settings, "train.iterations=2"]), tmp_path / "whole")
    run_training(load_config(None, [*settings, "train.iterations=1"]), tmp_path / "parts")
    torch.manual_seed(99)
    parts = run_training(load_config(None, [*settings, "train.iterations=2"]), tmp_path / "parts")
    assert equal(weights(whole.policy.model), weights(parts.policy.model))
    assert not equal(weights(whole.policy.model), weights(adapted["run"].policy.model))


def test_a_checkpoint_holds_the_adapter_alone_and_can_be_evaluated(adapted, capsys, monkeypatch):
    folder = find_model(adapted["out"])
    assert folder.name == "00003"
    assert not (folder / "model.safetensors").exists()
    policy = TransformersPolicy.load(folder, device="cpu")
    assert policy.adapted
    assert equal(weights(policy.model), weights(adapted["run"].policy.model))
    status, out = run_command(capsys, monkeypatch, "eval", adapted["out"], "eval.tasks=4")
    assert status == 0
    assert "sokoban/test[4]" in out


def test_merging_gives_an_ordinary_model(adapted, tmp_path, capsys, monkeypatch):
    status, _ = run_command(capsys, monkeypatch, "data", "merge-lora", adapted["out"], tmp_path / "whole")
    assert status == 0
    whole = TransformersPolicy.load(tmp_path / "whole", device="cpu")
    assert not whole.adapted
    ids = torch.tensor([whole.encode("progress")[:1] * 5])
    with torch.no_grad():
        trained = adapted["run"].policy.model(input_ids=ids).logits
        assert torch.allclose(whole.model(input_ids=ids).logits, trained, atol=1e-5)


def test_training_on_from_an_adapter_starts_a_new_one_on_its_merged_weights(adapted, tmp_path):
    """The new reference is what the run starts from, not the first base."""
    start = find_model(adapted["out"])
    config = load_config(None, [*adapted["settings"], f"train.init={start}", "train.iterations=1"])
    run = run_training(config, tmp_path / "next")
    ids = torch.tensor([run.policy.encode("progress")[:1] * 5])
    with torch.no_grad():
        trained = adapted["run"].policy.model(input_ids=ids).logits
        assert torch.allclose(run.updater.reference(input_ids=ids).logits, trained, atol=1e-5)
    again = TransformersPolicy.load(find_model(tmp_path / "next"), device="cpu")
    assert equal(weights(again.model), weights(run.policy.model))


def test_a_warmup_with_an_adapter_writes_a_whole_model(warm, tmp_path):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    from repro_rl.train.warmup import run_warmup

    settings = [*warm.settings, LORA, "warmup.save_every=2"]
    model = run_warmup(load_config(None, [*settings, "warmup.updates=4"]), warm.demos, tmp_path / "w")
    assert (model / "config.json").exists()
    checkpoint = TransformersPolicy.load(tmp_path / "w" / "checkpoints" / "00004", device="cpu")
    assert checkpoint.adapted
    whole = TransformersPolicy.load(model, device="cpu")
    ids = torch.tensor([whole.encode("progress")[:1] * 5])
    with torch.no_grad():
        left, right = whole.model(input_ids=ids).logits, checkpoint.model(input_ids=ids).logits
    assert torch.allclose(left, right, atol=1e-5)


def test_bad_targets_and_lost_bases_are_named(adapted, warm, tmp_path):
    config = load_config(None, [*warm.settings, "policy.lora={rank: 2, targets: [q_prog]}"])
    with pytest.raises(ConfigError, match=r"policy\.lora\.targets: .*q_prog"):
        load_policy(config, warm.model, training=True)
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in find_model(adapted["out"]).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "adapter_config.json"
    path.write_text(path.read_text().replace(str(Path(warm.model).resolve()), "/gone/model"))
    with pytest.raises(CheckpointError, match=r"an adapter on /gone/model, which is not there"):
        TransformersPolicy.load(folder, device="cpu")
