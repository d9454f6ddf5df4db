"""Models of the hub, wherever a command takes one: from the local cache, no network is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import run_command

NAME = "someone/warm-start"


@pytest.fixture
def cached(warm, tmp_path, monkeypatch) -> Path:
    """The warm start as a model of the hub in the local cache; the working directory."""
    import shutil

    repository = tmp_path / "cache" / "models--someone--warm-start"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("1" * 40)
    shutil.copytree(warm.model, repository / "snapshots" / ("1" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    (here / "runs").mkdir(parents=True)
    monkeypatch.chdir(here)
    return here


def run(capsys, monkeypatch, *arguments) -> tuple[int, str]:
    monkeypatch.setenv("COLUMNS", "200")
    status, out = run_command(capsys, monkeypatch, *arguments)
    return status, " ".join(out.split())


def settings_file(warm, folder: Path) -> str:
    from repro_rl.config import dump_config, load_config

    (folder / "small.yaml").write_text(dump_config(load_config(None, [*warm.settings, "eval.tasks=4"])))
    return "small.yaml"


def test_eval_takes_a_hub_name_as_policy_model_does(cached, warm, capsys, monkeypatch):
    source = settings_file(warm, cached)
    status, out = run(capsys, monkeypatch, "eval", NAME, "-c", source)
    assert status == 0, out
    assert not Path("someone").exists()  # a folder of the name would hide the model from then on
    folder = Path("runs/hub-someone-warm-start")
    result = json.loads((folder / "eval" / "last.json").read_text())
    assert result["checkpoint"] == NAME
    assert json.loads((folder / "manifest.json").read_text())["agent"] == NAME
    status, out = run(capsys, monkeypatch, "eval", folder)  # its folder knows the model and the settings
    assert status == 0, out
    again = json.loads((folder / "eval" / "last.json").read_text())
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    status, out = run(capsys, monkeypatch, "eval", warm.model, "-c", source, "-o", "of-folder")
    assert status == 0, out
    by_path = json.loads(Path("of-folder/eval/last.json").read_text())
    assert by_path["won"] == result["won"]
    assert by_path["progress"] == result["progress"]


def test_play_watches_a_hub_model_with_settings(cached, warm, capsys, monkeypatch):
    status, out = run(capsys, monkeypatch, "play", "sokoban", "--agent", NAME)
    assert status == 2
    assert "is not a run folder" in out
    assert "--config RECIPE" in out
    source = settings_file(warm, cached)
    status, out = run(capsys, monkeypatch, "play", "sokoban", "--agent", NAME, "-c", source)
    assert status == 0, out
    assert "retrospective" in out


def test_warmup_and_train_begin_with_a_hub_model(cached, warm, capsys, monkeypatch):
    source = settings_file(warm, cached)
    small = ["warmup.updates=1", "train.iterations=1", "train.groups=2", "train.group_size=2"]
    demos = ["--demos", warm.demos]
    status, out = run(
        capsys, monkeypatch, "warmup", "-c", source, *demos, "-o", "w", f"policy.model={NAME}", *small
    )
    assert status == 0, out
    more = ["--init", NAME, f"train.demos={warm.demos}", "train.validate_every=0"]
    status, out = run(capsys, monkeypatch, "train", "-c", source, "-o", "t", *more, *small)
    assert status == 0, out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "nope"], "No model folder at nope."),
        (["eval", "nobody/has-this"], "huggingface.co was not reached (HF_HUB_OFFLINE is set)."),
        (["eval", "./nobody/has-this"], "No model folder at ./nobody/has-this."),
        (["train", "--init", "nope"], "train.init=nope: No model folder at nope."),
        (["train", "train.init=runs/nope"], "train.init=runs/nope: No model folder at runs/nope."),
        (["warmup", "policy.model=nope"], "policy.model=nope: No model folder at nope."),
        (["warmup", "policy.model=./no/such"], "policy.model=./no/such: No model folder at ./no/such."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_that_is_nowhere_is_one_sentence(cached, warm, arguments, message, capsys, monkeypatch):
    if arguments[0] == "warmup":
        arguments = [*arguments, "--demos", warm.demos]
    status, out = run(capsys, monkeypatch, *arguments)
    assert status == 2
    assert message in out
    assert "Traceback" not in out
    assert "Retry" not in out
