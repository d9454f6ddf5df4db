"""How a command ends: interrupted, with a file that cannot be written, with an error of the package."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_rl.cli import entry, stages, view
from repro_rl.errors import DataError
from support.command import run_command

FULL = "No space left on device"


def ending(
    happens: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """``repro-rl demos``, in the middle of which something happens."""
    monkeypatch.setattr(stages, "run_demos_stage", lambda *arguments, **more: happens())
    return run_command(capsys, monkeypatch, "demos")


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGINT, 130, "Interrupted."),
        (signal.SIGTERM, 143, "Ended by a signal."),
        (signal.SIGHUP, 129, "Ended by a signal."),
    ],
)
def test_an_interruption_says_one_sentence(
    number: int,
    status: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(number)
    code, text = ending(lambda: signal.raise_signal(number), monkeypatch, capsys)
    assert code == status
    assert text == (
        f"{word} What was finished is saved, nothing half-written is left; "
        "repeating the command continues it.\n"
    )
    assert signal.getsignal(number) == before


def test_an_interrupted_command_that_keeps_nothing_promises_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(view, "take_folders", lambda runs: signal.raise_signal(signal.SIGINT))
    code, text = run_command(capsys, monkeypatch, "view", "runs/x")
    assert (code, text) == (130, "Interrupted. Nothing is half-written; the command can be repeated.\n")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, FULL, "{here}/a"), f"/a cannot be used: {FULL}, "),
        (
            OSError(errno.EFBIG, "", "{here}/a"),
            f"/a cannot be used: {os.strerror(errno.EFBIG)}. "
            "Raise the limit on the size of files (ulimit -f)",
        ),
        (OSError(errno.EDQUOT, "", "{here}/a"), f"{os.strerror(errno.EDQUOT)}. Make room; what was finished"),
        (PermissionError(errno.EACCES, "no", "/x/a"), "Make it writable, or choose another folder"),
        (RuntimeError(f"I/O error: {FULL} (os error 28)"), f"cannot be written: {FULL}"),
        (OSError("what a library says"), "what a library says"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
        (DataError("broken", file="x"), "DataError\nfile x: broken"),
    ],
)
def test_a_file_that_cannot_be_written_is_a_sentence(
    error: Exception,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if isinstance(error, OSError) and error.filename:
        error.filename = error.filename.format(here=tmp_path)

    def fails() -> None:
        raise error

    code, text = ending(fails, monkeypatch, capsys)
    assert code == 2
    assert sentence in text
    assert "Traceback" not in text
    if error.args and error.args[0] == errno.ENOSPC:
        assert "MB are free. Make room; what was finished before is kept, and repeating the command" in text


def test_a_mistake_of_ours_is_still_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "run_demos_stage", lambda *arguments, **more: [][1])
    monkeypatch.setattr("sys.argv", ["repro-rl", "demos"])
    with pytest.raises(IndexError):
        entry.main()


def test_output_that_cannot_be_printed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(stages, "run_demos_stage", lambda *arguments, **more: print("done"))
    monkeypatch.setattr("sys.argv", ["repro-rl", "demos"])
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as ended:
            entry.main()
        monkeypatch.undo()
        assert ended.value.code == 2
        assert "The output cannot be written: [Errno 28]" in capsys.readouterr().err


def test_demonstrations_in_the_place_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[Any]
) -> None:
    (tmp_path / "file").write_text("")
    code, text = run_command(capsys, monkeypatch, "demos", "-o", tmp_path / "file" / "demos")
    assert code == 2
    assert text.startswith("OSError\n")
    assert (
        "file is a file, and a folder is needed there. Choose another folder, for results with --out" in text
    )
