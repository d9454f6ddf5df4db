"""The commands ``repro-rl data alfworld``."""

from __future__ import annotations

from pathlib import Path

import pytest

import repro_rl
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
