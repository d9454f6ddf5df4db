"""Checkpoints: a bit-equal continuation, and nothing half written."""

from __future__ import annotations

import pytest
import torch

from repro_rl.config import PolicySection
from repro_rl.errors import CheckpointError
from repro_rl.policy import TransformersPolicy
from repro_rl.run.checkpoint import latest, load_optimizer, optimizer_tensors, prune, save_checkpoint
from repro_rl.run.model_paths import checkpoint_folders, read_state
from support.checkpoints import empty_checkpoint

CPU = PolicySection(device="cpu")


@pytest.fixture
def trained(tiny_folder):
    """The tiny model with an optimizer that has a history."""
    policy = TransformersPolicy.load(tiny_folder, CPU)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-2, betas=(0.9, 0.99))
    for seed in (0, 1):
        take_step(policy, optimizer, seed)
    return policy, optimizer


def take_step(policy, optimizer, seed):
    ids = torch.randint(3, 20, (2, 6), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    policy.model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


def test_continuing_from_a_checkpoint_is_bit_equal(trained, tmp_path):
    policy, optimizer = trained
    save_checkpoint(tmp_path / "checkpoints" / "00002", policy, optimizer, {"iteration": 2})
    again = TransformersPolicy.load(tmp_path / "checkpoints" / "00002", CPU)
    other = torch.optim.AdamW(again.model.parameters(), lr=1e-2, betas=(0.9, 0.99))
    load_optimizer(tmp_path / "checkpoints" / "00002", other)
    one, two = optimizer_tensors(optimizer), optimizer_tensors(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)
    assert any(bool(tensor.any()) for name, tensor in one.items() if name.endswith("exp_avg"))
    for seed in (5, 6):
        take_step(policy, optimizer, seed)
        take_step(again, other, seed)
    for a, b in zip(policy.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_half_written_checkpoints_are_ignored_and_swept(trained, tmp_path):
    policy, optimizer = trained
    run = tmp_path / "run"
    assert latest(run) is None
    save_checkpoint(run / "checkpoints" / "00002", policy, optimizer, {"iteration": 2})
    half = run / "checkpoints" / ".00004.123.tmp"
    half.mkdir()
    (half / "state.json").write_text("{}")
    (run / "checkpoints" / ".state.json.9.tmp").write_text("x")
    (run / "checkpoints" / "00006").mkdir()  # no state: not complete
    (run / "checkpoints" / "notes").mkdir()
    assert list(checkpoint_folders(run)) == [2]
    assert latest(run) == (2, run / "checkpoints" / "00002", {"iteration": 2})
    assert not list((run / "checkpoints").glob(".*"))
    # a failure while writing leaves the old one as it was
    with pytest.raises(TypeError):
        save_checkpoint(run / "checkpoints" / "00002", policy, optimizer, {"iteration": object()})
    assert latest(run)[2] == {"iteration": 2}


def test_broken_checkpoints(trained, tmp_path):
    policy, optimizer = trained
    folder = tmp_path / "checkpoints" / "00002"
    save_checkpoint(folder, policy, optimizer, {})
    small = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="parameters"):
        load_optimizer(folder, torch.optim.AdamW(small.parameters()))
    wide = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(3)) for _ in policy.model.parameters()])
    with pytest.raises(CheckpointError, match="another model"):
        load_optimizer(folder, torch.optim.AdamW(wide.parameters()))
    (folder / "state.json").write_text("{}")  # as an older one: without the sums of its files
    (folder / "optimizer.safetensors").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors cannot be read"):
        load_optimizer(folder, optimizer)
    (folder / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is missing"):
        load_optimizer(folder, optimizer)
    for text in ("{", "[1]"):
        (folder / "state.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"state\.json cannot be read"):
            read_state(folder)


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    for iteration in (2, 4, 6, 8, 10):
        empty_checkpoint(tmp_path, iteration)
    prune(tmp_path, 2, best=4)
    assert list(checkpoint_folders(tmp_path)) == [4, 8, 10]
    prune(tmp_path, 1, best=None)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00010"]
