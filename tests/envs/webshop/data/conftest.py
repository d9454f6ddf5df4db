"""Fixtures for tests that write catalogues."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests write hundreds of catalogues; waiting for the disk would be most of their time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "webshop"
