"""Paths that a run keeps: right from any directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from repro_rl.config import RunConfig, dump_config, load_config
from repro_rl.config.paths import base_entry, base_of, read_run_settings, rebased, resolved

SETTINGS = [
    "prompt.template_dir=templates",
    "train.demos=demos",
    "train.init=runs/warm/model",
    "policy.model=Qwen/Qwen3-0.6B",
    "env.settings={levels: levels/a.txt, style: grid}",
    "demos.recorded=[runs/a, /b]",
    "demos.episodes=[own.jsonl]",
    "train.tracking.address=sqlite:///mlflow.db",
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was started in ``project`` and keeps relative paths."""
    project = tmp_path / "project"
    for name in ("runs/warm/model", "runs/rl", "levels"):
        (project / name).mkdir(parents=True)
    (project / "levels" / "a.txt").write_text("")
    monkeypatch.chdir(project)
    folder = project / "runs" / "rl"
    (folder / "config.yaml").write_text(dump_config(load_config(None, SETTINGS)))
    (folder / "manifest.json").write_text(json.dumps(base_entry(Path("runs/rl"))))
    return folder


def test_the_base_is_relative_to_the_run_folder(run: Path, tmp_path: Path) -> None:
    assert json.loads((run / "manifest.json").read_text()) == {"paths_from": "../.."}
    assert base_of(run) == tmp_path / "project"
    assert base_of(tmp_path) == Path.cwd()  # not known: as every path


def test_where_it_began_nothing_changes(run: Path) -> None:
    assert load_config("runs/rl/config.yaml") == load_config(None, SETTINGS)


def test_from_elsewhere_the_same_files_are_meant(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, project = tmp_path / "elsewhere", tmp_path / "project"
    (elsewhere / "runs" / "warm" / "model").mkdir(parents=True)  # another one of this name
    monkeypatch.chdir(elsewhere)
    config = load_config(run / "config.yaml", ["train.demos=mine"])
    assert config.train.init == str(project / "runs" / "warm" / "model")
    assert config.prompt.template_dir == project / "templates"
    assert config.env.settings == {"levels": str(project / "levels" / "a.txt"), "style": "grid"}
    assert config.policy.model == "Qwen/Qwen3-0.6B"
    assert config.demos.recorded == (str(project / "runs" / "a"), "/b")
    assert config.demos.episodes == (str(project / "own.jsonl"),)
    assert config.train.tracking.address == f"sqlite:///{project / 'mlflow.db'}"
    assert str(config.train.demos) == "mine"  # typed now
    assert resolved(run, "demos") == project / "demos"
    monkeypatch.chdir(tmp_path)
    assert read_run_settings(run / "config.yaml")["train"]["init"] == "project/runs/warm/model"


def test_a_project_may_be_moved(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").rename(tmp_path / "moved")
    settings = read_run_settings(tmp_path / "moved" / "runs" / "rl" / "config.yaml")
    assert settings["demos"]["episodes"] == ["moved/own.jsonl"]
    assert settings["train"]["tracking"]["address"] == "sqlite:///moved/mlflow.db"
    assert settings["train"]["init"] == "moved/runs/warm/model"


@pytest.mark.parametrize("address", ["sqlite:////var/mlflow.db", "http://127.0.0.1:5000", None])
def test_what_is_no_relative_path_of_a_database_is_left_alone(tmp_path: Path, address: str | None) -> None:
    data = {"train": {"tracking": {"address": address}}}
    assert rebased(data, tmp_path, tmp_path / "other") == data


def test_recipes_and_files_of_the_user_are_left_alone(run: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"train": {"init": "runs/warm/model"}}))
    assert load_config(str(recipe)).train.init == "runs/warm/model"
    data = RunConfig().model_dump(mode="json")
    assert rebased(data, tmp_path, tmp_path / "other") == data  # no path in it
