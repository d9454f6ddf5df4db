"""One flipped bit of a saved file is an error that names the file and what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from repro_rl.config import LoraSection, PolicySection
from repro_rl.errors import CheckpointError, NonFiniteError
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.loading.checksums import check_files, file_sums
from repro_rl.run.checkpoint import latest, load_optimizer, save_checkpoint, save_warm_start
from repro_rl.run.model_paths import read_state
from repro_rl.run.models import load_policy

CPU = PolicySection(device="cpu")


@pytest.fixture
def saved(tiny_folder, tmp_path) -> tuple[Path, torch.optim.Optimizer]:
    """A checkpoint, and an optimizer of its model."""
    policy = TransformersPolicy.load(tiny_folder, CPU)
    optimizer = torch.optim.AdamW(policy.model.parameters())
    ids = torch.tensor([[5, 6, 7, 8]])
    policy.model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    folder = tmp_path / "run" / "checkpoints" / "00003"
    save_checkpoint(folder, policy, optimizer, {"iteration": 3})
    return folder, optimizer


def flip(path: Path, byte: int = -1) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 0x40
    path.write_bytes(content)


def test_sums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "state.json").write_text("{}")
    assert file_sums(tmp_path) == {
        "b": {"size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        "part/a": {"size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    }


def test_a_whole_checkpoint_loads_and_its_state_is_what_was_given(saved):
    folder, optimizer = saved
    assert set(json.loads((folder / "state.json").read_text())["files"]) >= {
        "model.safetensors",
        "optimizer.safetensors",
        "config.json",
        "tokenizer.json",
    }
    assert read_state(folder) == {"iteration": 3}
    assert latest(folder.parent.parent) == (3, folder, {"iteration": 3})
    load_policy(CPU, folder)
    load_optimizer(folder, optimizer)


@pytest.mark.parametrize("byte", [-1, -5000])
def test_a_flipped_bit_of_the_weights(saved, byte):
    folder, optimizer = saved
    flip(folder / "model.safetensors", byte)
    message = (
        f"the content of {folder / 'model.safetensors'} is not what was written (SHA-256): damaged, or "
        f"edited since. Delete {folder} to use an older checkpoint; if the change is yours, remove 'files' "
        f"and 'state_sha256' from {folder / 'state.json'}."
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_policy(CPU, folder, training=True)
    load_optimizer(folder, optimizer)  # of which nothing is wrong


def test_a_flipped_bit_of_the_optimizer(saved):
    folder, optimizer = saved
    flip(folder / "optimizer.safetensors")
    with pytest.raises(
        CheckpointError, match=re.escape(f"{folder / 'optimizer.safetensors'} is not what was")
    ):
        load_optimizer(folder, optimizer)
    load_policy(CPU, folder)  # to evaluate it needs no optimizer


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_change_that_would_be_read_without_complaint(saved, name):
    folder, _ = saved
    with open(folder / name, "a") as handle:
        handle.write(" ")
    with pytest.raises(CheckpointError, match=rf"{name} has [\d,]+ bytes, [\d,]+ were written"):
        load_policy(CPU, folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} is missing"):
        check_files(folder)


def test_older_checkpoints_have_no_sums(saved):
    folder, optimizer = saved
    (folder / "state.json").write_text('{"iteration": 3}')
    flip(folder / "model.safetensors", -4)  # the last bits of a weight
    load_policy(CPU, folder)
    load_optimizer(folder, optimizer)
    check_files(folder.parent)  # and other folders no state


def test_a_warm_start_and_an_adapter_have_sums_too(tiny_folder, tmp_path):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    policy = TransformersPolicy.load(tiny_folder, CPU, training=True)
    warm = tmp_path / "model"
    save_warm_start(warm, policy)
    policy = load_policy(CPU, warm, training=True)
    policy.adapt(LoraSection(rank=2), warm, 0)
    folder = tmp_path / "checkpoints" / "00001"
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    save_checkpoint(folder, policy, torch.optim.AdamW(trained), {})
    load_policy(CPU, folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    flip(copy / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=f"Copy {copy} again, or delete it and repeat the command"):
        load_policy(CPU, copy)
    flip(warm / "model.safetensors")  # the base model of the adapter
    with pytest.raises(
        CheckpointError, match=re.escape(f"{warm / 'model.safetensors'} is not what was written")
    ):
        load_policy(CPU, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tiny_folder, tmp_path, value):
    policy = TransformersPolicy.load(tiny_folder, CPU, training=True)
    with torch.no_grad():
        policy.model.model.norm.weight[0] = value
    for save in (
        lambda: save_checkpoint(tmp_path / "one", policy, {}, {}),
        lambda: save_warm_start(tmp_path / "one", policy),
    ):
        with pytest.raises(
            NonFiniteError, match=r"model\.norm\.weight .* not saved\. Lower the learning rate"
        ):
            save()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"iteration": 3', '"iteration": 2'),
        lambda text: text.replace('"size": ', '"size": 1'),
        lambda text: text.replace('"sha256": "', '"sha256": "0', 1),
        lambda text: text[:-20],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"files": {', '"files": {"x": 3, '),
    ],
)
def test_another_state_than_was_written_is_an_error(saved, change):
    folder, optimizer = saved
    path = folder / "state.json"
    path.write_text(change(path.read_text()))
    for load in (
        lambda: latest(folder.parent.parent),
        lambda: load_policy(CPU, folder),
        lambda: load_optimizer(folder, optimizer),
        lambda: TransformersPolicy.load(folder, CPU),
    ):
        with pytest.raises(CheckpointError, match=r"state\.json.*[Dd]elete"):
            load()


def test_weights_that_nobody_listed_and_a_missing_state(saved):
    folder, _ = saved
    (folder / "model-00002.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"model-00002\.safetensors is not among the files"):
        load_policy(CPU, folder)
    (folder / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        read_state(folder)


def test_an_optimizer_of_other_content_is_refused(saved):
    folder, optimizer = saved
    (folder / "state.json").write_text("{}")  # as an older one: without sums
    for tensors, message in (
        ({"weight": torch.zeros(2)}, "'weight', which is no optimizer state"),
        ({"-1.exp_avg": torch.zeros(2)}, "'-1.exp_avg', which is no optimizer state"),
        ({"0.exp_avg": torch.tensor([float("nan")])}, "0.exp_avg holds numbers that are NaN"),
    ):
        save_file(tensors, folder / "optimizer.safetensors")
        with pytest.raises(CheckpointError, match=re.escape(message)):
            load_optimizer(folder, optimizer)
