"""``benchmarks/openenv_sessions.py`` on a small job."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

pytest.importorskip("openenv", reason="openenv is not installed: pip install '.[openenv]'")

FOLDER = Path(__file__).parents[3] / "benchmarks"


def test_sessions_are_counted_and_weighed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    small = ["sokoban", "--sessions", "5", "--steps", "20", "--alone", "1", "--port", "18790"]
    monkeypatch.setattr("sys.argv", ["openenv_sessions.py", *small])
    importlib.import_module("openenv_sessions").main()
    rows = re.findall(r"^(.*): (\d+) sessions,.* RSS (\d+) MB, PSS (\d+) MB", capfd.readouterr().out, re.M)
    assert [(name, int(count)) for name, count, *_ in rows] == [
        ("one process", 5),
        ("one process a session, ours", 1),
    ]
    assert all(int(rss) >= int(pss) > 0 for *_, rss, pss in rows)
