"""What a newcomer mistypes: the message says what is wrong and what to do, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command import run_command


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train --train.iterations=2", "Settings are written without dashes: train.iterations=VALUE"),
        ("train --seed=1", "Settings are written without dashes: seed=VALUE"),
        ("doctor --model empty", "--model empty: empty holds no model"),
        ("doctor --model nowhere", "--model nowhere: No model folder at nowhere."),
        ("plan sokoban-tiny policy.model=./emtpy", "No model folder at ./emtpy. Did you mean empty?"),
        ("plan sokoban-tiny policy.model=/nope/model --probe", "No model folder at /nope/model."),
        ("plan sokoban-tiny policy.model=nope.gguf", "No GGUF file at nope.gguf."),
        ("train -c errand.yaml", "One of your own is known after its module is imported: plugins=[MODULE]."),
        ("doctor errand", "One of your own is known after its module is imported: plugins=[MODULE]."),
        ("train -c typo.yaml", "Unknown setting 'bsae'; did you mean 'base'?"),
        ("compare typo.yaml", "Unknown setting 'bsae'; did you mean 'base'?"),
        ("train base=sokoban-tiny", "Unknown setting 'base'; did you mean 'seed'?"),
        ("data webshop info nowhere", "or with 'repro-rl data webshop generate' from none"),
        ("play sokoban --agent x --expert", "--expert and --agent x name two players of one episode"),
        ("play sokoban -c sokoban-tiny", "--config belongs to --agent"),
        ("view runs", "did you mean runs/a or runs/b?"),
    ],
)
def test_a_mistake_is_explained(
    command: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty").mkdir()
    for run in "ab":
        Path(f"runs/{run}/trajectories").mkdir(parents=True)
    Path("errand.yaml").write_text("env: {name: errand}\n")
    Path("typo.yaml").write_text("bsae: sokoban-tiny\n")
    status, out = run_command(capsys, monkeypatch, *command.split())
    assert status != 0
    assert said in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize(
    "command", ["demos", "warmup", "train train.init=x", "compare -c sokoban-tiny", "pilot", "demo"]
)
def test_an_existing_file_is_no_folder_to_write_to(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("README.md").write_text("mine\n")
    status, out = run_command(capsys, monkeypatch, *command.split(), "-o", "README.md")
    assert status == 2
    assert "README.md is a file, and a folder is needed there." in out
    assert "continues it" not in out


@pytest.mark.parametrize("model", ["api:foo -c sokoban-tiny", "nobody/nothing -c sokoban-qwen3"])
def test_an_evaluation_that_cannot_begin_leaves_no_folder(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _ = run_command(capsys, monkeypatch, "eval", *model.split())
    assert status == 2
    assert list(tmp_path.iterdir()) == []
