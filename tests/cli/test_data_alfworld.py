"""The commands ``repro-rl data alfworld``."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import repro_rl
from repro_rl.envs.alfworld import export
from repro_rl.errors import TaskError
from support.command import run_command


def test_the_command_writes_and_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    out = str(tmp_path / "games")
    generate = ("data", "alfworld", "generate", "-o", out, "--games", "12", "--seed", "4")
    code, text = run_command(capsys, monkeypatch, *generate)
    assert code == 0
    assert "32 of 32 games written (0 were there)" in text
    assert f"data={out}" in text
    assert "0 of 32 games written (32 were there)" in run_command(capsys, monkeypatch, *generate)[1]
    code, text = run_command(capsys, monkeypatch, *generate[:-1], "5")
    assert code == 2
    assert "choose another folder" in " ".join(text.split())
    code, text = run_command(capsys, monkeypatch, "data", "alfworld", "info", out)
    assert code == 0
    panel = repro_rl.make("alfworld", data=out).panel("valid_unseen")
    assert f"valid_unseen: 10 games, panel digest {panel.digest}" in text
    assert "look_at_obj_in_light" in text
    assert run_command(capsys, monkeypatch, "data", "alfworld", "info")[0] == 2
    monkeypatch.setenv("ALFWORLD_DATA", out)
    assert run_command(capsys, monkeypatch, "data", "alfworld", "info") == (0, text)


def test_an_interrupted_folder_and_an_empty_split_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(export, "split_sizes", lambda games: {"train": 24})  # as if it was interrupted then
        export.write_tree(Path("games"), 100)
    command = ("data", "alfworld", "hold-out", "games", "--test", "0.4", "--validation", "0.01")
    short = (
        "'repro-rl data alfworld generate' was interrupted: train has 24 of 100 games. Repeat that command."
    )
    # Of the training games alone: the others play no part here.
    with pytest.warns(UserWarning, match="is not complete") as warned:
        code, text = run_command(capsys, monkeypatch, *command, "-o", "parts")
    assert [str(one.message) for one in warned] == [f"games/json_2.1.1 is not complete. {short}"]
    assert code == 0, text
    assert ", valid_seen 0, train " in text
    assert "valid_seen got no game: no task type has enough for a share of 0.01." in text
    assert "valid_unseen got no game" not in text
    with pytest.warns(UserWarning, match="train has 24 of 100 games"):
        code, text = run_command(capsys, monkeypatch, "data", "alfworld", "info", "games")
    assert "valid_seen: none of its 25 games was made before 'generate' was interrupted" in text
    with warnings.catch_warnings(record=True) as none:
        warnings.simplefilter("always")
        run_command(capsys, monkeypatch, "data", "alfworld", "info", "parts")
    assert not none
    env = repro_rl.make("alfworld", data="games")
    with pytest.warns(UserWarning, match="train has 24 of 100 games"):
        env.panel("train")
    with pytest.raises(TaskError, match=r"no games for the split valid_seen.*valid_seen has 0 of 25 games"):
        env.panel("validation")


@pytest.mark.parametrize("words", [("hold-out", "missing", "-o", "parts"), ("info", "missing")])
def test_a_missing_folder_is_said_to_be_missing(
    words: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run_command(capsys, monkeypatch, "data", "alfworld", *words)
    assert (code, "file missing: does not exist" in text) == (2, True), text
    assert not Path("parts").exists()
