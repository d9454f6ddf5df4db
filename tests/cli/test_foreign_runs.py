"""Commands on folders that somebody else made."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from repro_rl.config import dump_config, load_config
from repro_rl.config.trust import is_own
from repro_rl.run.folder import open_run
from repro_rl.run.loading import load_run
from repro_rl.study.definition import load_study
from repro_rl.study.folder import write_study
from support.command import run_command

SECRET = "AWS_SECRET_ACCESS_KEY"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose settings name a server, a secret and a module, as if an API model had been evaluated."""
    overrides = ["api.base_url=http://127.0.0.1:9/v1", f"api.key_env={SECRET}", "api.model=m"]
    data = yaml.safe_load(dump_config(load_config("sokoban-qwen3", overrides)))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({**data, "plugins": ["evil_module"]}))
    (run / "manifest.json").write_text('{"agent": "api:m"}')
    (tmp_path / "evil_module.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(SECRET, "SECRET-9")
    return run


@pytest.mark.parametrize("command", [("eval",), ("play", "sokoban", "--agent"), ("pilot", "--model")])
def test_commands_refuse_and_say_how_to_allow(
    command: tuple[str, ...],
    foreign: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, text = run_command(capsys, monkeypatch, *command, foreign)
    assert code == 2
    for words in ("plugins = ['evil_module']", f"api.key_env = '{SECRET}'", "api.base_url", "-c "):
        assert words in text, words
    assert "SECRET-9" not in text
    assert "evil_module" not in sys.modules


def test_reports_and_the_library_read_it_as_data(
    foreign: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run_command(capsys, monkeypatch, "report", foreign)
    assert code == 0, text
    assert "evil_module" not in sys.modules
    from repro_rl.errors import ConfigError

    with pytest.raises(ConfigError, match="trust=True"):
        load_run(foreign)


def test_a_run_that_was_made_here_is_trusted(tmp_path: Path) -> None:
    config = load_config("sokoban-qwen3", ["api.base_url=http://127.0.0.1:9/v1"])
    open_run(tmp_path / "run", config)
    assert is_own(tmp_path / "run" / "config.yaml")
    assert load_run(tmp_path / "run").config == config
    (tmp_path / "run" / "metrics.jsonl").write_text('{"iteration": 1}\n')
    assert open_run(tmp_path / "run", config)  # and continues
    assert is_own(tmp_path / "run" / "config.yaml")


def test_a_study_of_somebody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    study = load_study(None, methods=["grpo"], seeds=[0])
    out = tmp_path / "study"
    write_study(out, study, [], parallel=1)
    code, text = run_command(capsys, monkeypatch, "compare", "-o", out, "--dry-run")
    assert code == 0, text
    content = json.loads((out / "study.json").read_text())
    for change in (
        {"set": ["plugins=[evil_module]"]},
        {"set": ["prompt={template_dir: /tmp}"]},
        {"set": ["env.settings.levels=/etc"]},
        {"recipe": "/tmp/theirs.yaml"},
    ):
        (out / "study.json").write_text(json.dumps({**content, "study": {**content["study"], **change}}))
        code, text = run_command(capsys, monkeypatch, "compare", "-o", out, "--only", "table")
        assert code == 2, change
        assert "was not written on this account" in text
        assert "repro-rl compare STUDY.yaml" in text
    assert "evil_module" not in sys.modules
    harmless = {**content["study"], "set": ["train.lr=0.1"]}
    (out / "study.json").write_text(json.dumps({**content, "study": harmless}))
    code, text = run_command(capsys, monkeypatch, "compare", "-o", out, "--dry-run")
    assert code == 0, text


def test_an_adapter_may_not_name_a_module(tmp_path: Path, tiny_folder: Path) -> None:
    pytest.importorskip("peft")
    from repro_rl.errors import CheckpointError
    from repro_rl.policy.loading.lora import load_onto

    content = {
        "base_model_name_or_path": str(tiny_folder),
        "peft_type": "LORA",
        "megatron_config": {"a": 1},
        "megatron_core": "evil_module",
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="would import the Python module 'evil_module'"):
        load_onto(None, tmp_path, training=False)


def test_files_may_have_a_sign_of_settings_in_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lr=1.yaml").write_text("methods: [grpo]\nseeds: [7]\n")
    code, text = run_command(
        capsys, monkeypatch, "compare", tmp_path / "lr=1.yaml", "-o", tmp_path / "s", "--dry-run"
    )
    assert code == 0, text
    assert "run-grpo-seed7" in text
