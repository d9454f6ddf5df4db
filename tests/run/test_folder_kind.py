"""No command writes into the folder of another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro_rl.config import load_config
from repro_rl.errors import ConfigError
from repro_rl.run.folder import check_run, manifest, open_run, write_manifest
from repro_rl.run.folder_kind import check_kind, kind_of
from support.command import run_command


def test_what_a_folder_holds(tmp_path: Path) -> None:
    config = load_config(None)
    assert kind_of(tmp_path) is None
    for kind in ("training", "warmup", "verl", "pilot", "evaluation"):
        folder = tmp_path / kind
        open_run(folder, config, kind=kind)
        assert kind_of(folder) is None  # nothing was begun
        check_kind(folder, "study")
        write_manifest(folder, manifest(config, kind))
        assert kind_of(folder) == kind
        check_kind(folder, kind)
    for name, kind in (("study.json", "study"), ("pilot.json", "pilot"), ("demos.json", "demonstrations")):
        folder = tmp_path / f"of-{kind}"
        folder.mkdir()
        (folder / name).write_text("{}")
        assert kind_of(folder) == kind


def test_the_manifest_of_an_earlier_version_names_no_kind(tmp_path: Path) -> None:
    config = load_config(None)
    open_run(tmp_path, config)
    content = manifest(config, "warmup")
    del content["kind"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert kind_of(tmp_path) is None
    assert check_run(tmp_path, config, kind="warmup") is False


def test_a_demo_is_told_by_its_stages(tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    (tmp_path / "demos" / "demos.json").write_text("{}")
    assert kind_of(tmp_path) is None
    open_run(tmp_path / "train", load_config(None))
    assert kind_of(tmp_path) == "demo"
    with pytest.raises(ConfigError, match="holds the stages of a demo, not a study; name another folder"):
        check_kind(tmp_path, "study")


def test_a_refused_run_leaves_everything_as_it_was(tmp_path: Path) -> None:
    config = load_config(None)
    open_run(tmp_path, config)
    write_manifest(tmp_path, manifest(config, "training"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(ConfigError, match="holds a training run, not a warmup; name another folder"):
        open_run(tmp_path, load_config(None, ["seed=3"]), kind="warmup")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*")} == before


COMMANDS = {
    "training": ["train", "train.iterations=1"],
    "warmup": ["warmup", "--demos", "nowhere"],
    "demonstrations": ["demos"],
    "study": ["compare", "-c", "sokoban-tiny", "-m", "gigpo", "--seeds", "0"],
    "demo": ["demo"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("there", ["training", "warmup", "demonstrations", "study"])
def test_every_command_refuses_the_folders_of_others(command, there, tmp_path, capsys, monkeypatch) -> None:
    if command == there:
        return
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    names = {"demonstrations": "demos.json", "study": "study.json"}
    if there in names:
        (folder / names[there]).write_text("{}")
    else:
        open_run(folder, load_config(None), kind=there)
        write_manifest(folder, manifest(load_config(None), there))
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    status, said = run_command(capsys, monkeypatch, *COMMANDS[command], "-o", "out")
    assert status == 2
    assert "name another folder with --out" in " ".join(said.split())
    assert {path: path.read_bytes() for path in folder.rglob("*")} == before
