"""Structures on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.envs.webshop.data.tables import Names, save_hashes


def test_equal_hashes_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro_rl.envs.webshop.data.tables._hash", lambda text: 7)
    keys = ["x", "y", "z", "y"]
    save_hashes(tmp_path, "k", keys)
    names = Names(tmp_path, "k", keys.__getitem__)
    assert [names.find(key) for key in "xyzw"] == [0, 1, 2, None]
