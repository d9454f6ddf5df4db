"""Training adapters beside frozen weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repro_rl.config import load_config
from repro_rl.run.model_paths import find_model
from repro_rl.train import run_training, run_warmup
from support.command import run_command
from support.models import equal_weights, load_cpu, weights_of

TRAIN = (
    "train={epochs: 1, minibatches: 2, groups: 4, group_size: 4, lr: 0.01, lr_warmup: 0, validate_every: 0}"
)
LORA = "policy.lora={rank: 4}"


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
    start = weights_of(load_cpu(warm.model).model)
    now = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in weights_of(model).items()
        if "lora_" not in name
    }
    assert equal_weights(start, now)
    assert any(p.abs().max() > 0 for name, p in model.named_parameters() if "lora_B" in name)


def test_the_reference_is_the_warm_start(adapted, warm):
    """With the adapter off the model computes what the warm start computes, bit for bit; KL starts at 0."""
    run = adapted["run"]
    ids = torch.tensor([run.policy.codec.encode("progress")[:1] * 5])
    base = load_cpu(warm.model).model
    with torch.no_grad():
        reference = run.updater.trained.reference(input_ids=ids).logits
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
    assert equal_weights(weights_of(again.policy.model), weights_of(adapted["run"].policy.model))


def test_dropout_is_seeded(adapted, tmp_path):
    settings = [*adapted["settings"], "policy.lora={rank: 4, dropout: 0.3}", "train.keep=9"]
    whole = run_training(load_config(None, [*settings, "train.iterations=2"]), tmp_path / "whole")
    run_training(load_config(None, [*settings, "train.iterations=1"]), tmp_path / "parts")
    torch.manual_seed(99)
    parts = run_training(load_config(None, [*settings, "train.iterations=2"]), tmp_path / "parts")
    assert equal_weights(weights_of(whole.policy.model), weights_of(parts.policy.model))
    without = load_cpu(adapted["out"] / "checkpoints" / "00002").model
    assert not equal_weights(weights_of(whole.policy.model), weights_of(without))


def test_a_checkpoint_holds_the_adapter_alone_and_can_be_evaluated(adapted, capsys, monkeypatch):
    folder = find_model(adapted["out"])
    assert folder.name == "00003"
    assert not (folder / "model.safetensors").exists()
    policy = load_cpu(folder)
    assert policy.adapted
    assert equal_weights(weights_of(policy.model), weights_of(adapted["run"].policy.model))
    status, out = run_command(capsys, monkeypatch, "eval", adapted["out"], "eval.tasks=4")
    assert status == 0
    assert "sokoban/test[4]" in out


def test_merging_gives_an_ordinary_model(adapted, tmp_path, capsys, monkeypatch):
    status, _ = run_command(capsys, monkeypatch, "data", "merge-lora", adapted["out"], tmp_path / "whole")
    assert status == 0
    whole = load_cpu(tmp_path / "whole")
    assert not whole.adapted
    ids = torch.tensor([whole.codec.encode("progress")[:1] * 5])
    with torch.no_grad():
        trained = adapted["run"].policy.model(input_ids=ids).logits
        assert torch.allclose(whole.model(input_ids=ids).logits, trained, atol=1e-5)


def test_training_on_from_an_adapter_starts_a_new_one_on_its_merged_weights(adapted, tmp_path):
    """The new reference is what the run starts from, not the first base."""
    start = find_model(adapted["out"])
    config = load_config(None, [*adapted["settings"], f"train.init={start}", "train.iterations=1"])
    run = run_training(config, tmp_path / "next")
    ids = torch.tensor([run.policy.codec.encode("progress")[:1] * 5])
    with torch.no_grad():
        trained = adapted["run"].policy.model(input_ids=ids).logits
        assert torch.allclose(run.updater.trained.reference(input_ids=ids).logits, trained, atol=1e-5)
    again = load_cpu(find_model(tmp_path / "next"))
    assert equal_weights(weights_of(again.model), weights_of(run.policy.model))


def test_a_warmup_with_an_adapter_writes_a_whole_model(warm, tmp_path):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    settings = [*warm.settings, LORA, "warmup.save_every=2"]
    model = run_warmup(load_config(None, [*settings, "warmup.updates=4"]), warm.demos, tmp_path / "w")
    assert (model / "config.json").exists()
    checkpoint = load_cpu(tmp_path / "w" / "checkpoints" / "00004")
    assert checkpoint.adapted
    whole = load_cpu(model)
    ids = torch.tensor([whole.codec.encode("progress")[:1] * 5])
    with torch.no_grad():
        left, right = whole.model(input_ids=ids).logits, checkpoint.model(input_ids=ids).logits
    assert torch.allclose(left, right, atol=1e-5)
