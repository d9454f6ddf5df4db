"""The user's folders on every platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.files.roots import cache_root, settings_root


def test_the_folder_of_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "mine"))
    assert cache_root() == tmp_path / "mine"
    assert not cache_root().exists()
    monkeypatch.delenv("REPRO_RL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_root() == tmp_path / "repro-rl"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr("sys.platform", "win32")
    assert cache_root() == tmp_path / "local" / "repro-rl"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_root() == Path.home() / "Library" / "Caches" / "repro-rl"


def test_the_folder_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRO_RL_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert settings_root() == tmp_path / "repro-rl"
    monkeypatch.setenv("APPDATA", str(tmp_path / "roaming"))
    monkeypatch.setattr("sys.platform", "win32")
    assert settings_root() == tmp_path / "roaming" / "repro-rl"
    monkeypatch.setattr("sys.platform", "darwin")
    assert settings_root() == Path.home() / "Library" / "Application Support" / "repro-rl"
