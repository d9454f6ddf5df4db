"""API models on the command line: whole evaluations, errors without the key, names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro_rl.cli.api import api_model, api_run
from repro_rl.config import dump_config, load_config
from repro_rl.errors import CheckpointError, ConfigError, DataError
from repro_rl.run.model_paths import find_agent
from repro_rl.run.models import load_policy
from support.api_evaluation import evaluation_settings
from support.api_questions import on_disk
from support.api_server import KEY, completion, error, sensible
from support.command import run_command


@pytest.fixture
def settings(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)
    return evaluation_settings(server.url, tmp_path / "cache")


@pytest.mark.parametrize("override", ["policy.model=api:gpt", "train.init=api:gpt"])
def test_training_an_api_model_is_an_error(override):
    with pytest.raises(ConfigError, match=r"an API model has no weights here, so it cannot be trained"):
        load_config("sokoban-qwen3", [override])
    with pytest.raises(ConfigError, match=r"it can act, but not be trained\. Give a model folder"):
        load_policy(load_config("sokoban-qwen3").policy, "api:gpt", training=True)


def test_eval_and_play_on_the_command_line(server, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, out = run_command(
        capsys, monkeypatch, "eval", "api:lab/some model", "-c", "sokoban-qwen3", *settings
    )
    assert status == 0, out
    folder = tmp_path / "runs" / "api-lab-some-model"
    assert f"{server.calls} answers in {server.calls} calls, 0 from before" in out
    result = json.loads((folder / "eval" / "api-lab-some-model.json").read_text())
    assert result["checkpoint"] == "api:lab/some model"
    assert {body["model"] for body in server.bodies} == {"lab/some model"}
    # The folder is a run folder: it can be evaluated again, watched, and reported on.
    calls = server.calls
    status, out = run_command(capsys, monkeypatch, "eval", folder)
    assert status == 0, out
    assert server.calls == calls
    status, out = run_command(capsys, monkeypatch, "play", "sokoban", "--agent", folder)
    assert status == 0, out
    assert "retrospective" in out
    assert KEY.encode() not in on_disk(tmp_path)
    assert KEY not in out


def test_errors_on_the_command_line_hold_no_key(server, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    server.reply = lambda body, number: error(401, f"bad key {KEY}")
    status, out = run_command(capsys, monkeypatch, "eval", "api:m", "-c", "sokoban-qwen3", *settings)
    assert status == 2
    assert out.startswith("ApiError")
    assert "Traceback" not in out
    assert "bad key [key]" in out
    assert KEY not in out
    assert KEY.encode() not in on_disk(tmp_path)
    server.reply = lambda body, number: completion(sensible(body))
    server.forget()
    status, out = run_command(
        capsys, monkeypatch, "eval", "api:m", "-c", "sokoban-qwen3", *settings, "api.budget.calls=5"
    )
    assert (status, server.calls) == (2, 5)
    assert "BudgetError" in out
    status, out = run_command(capsys, monkeypatch, "eval", "api:", "-c", "sokoban-qwen3", *settings)
    assert status == 2
    assert "api:MODEL" in out


def test_names_of_api_models(tmp_path):
    assert api_model(Path("api:Qwen/Qwen3-8B")) == "Qwen/Qwen3-8B"
    assert api_model(Path("runs/x")) is None
    assert api_run("Qwen/Qwen3-8B:free") == Path("runs/api-Qwen-Qwen3-8B-free")
    assert find_agent("api:m") == Path("api:m")
    with pytest.raises(CheckpointError, match="No model folder at"):
        find_agent(tmp_path / "none")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no model"):
        find_agent(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match=r"manifest\.json: .*not a list"):
        find_agent(tmp_path)


def test_settings_survive_the_run_folder(settings):
    config = load_config("sokoban-qwen3", settings)
    assert "TEST_API_KEY" in dump_config(config)
    assert KEY not in dump_config(config)
