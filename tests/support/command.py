"""Run a command in this process, as a person types it."""

from __future__ import annotations

from typing import Any

import pytest

from repro_rl.cli import main


def run_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: Any
) -> tuple[int, str]:
    """Exit status and everything printed."""
    monkeypatch.setattr("sys.argv", ["repro-rl", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err
