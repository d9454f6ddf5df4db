"""What reaches a terminal: nothing of others that could drive it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from repro_rl.cli.app import app
from repro_rl.cli.show import allowed, console
from repro_rl.cli.terminal import SafeConsole
from repro_rl.errors import visible
from support.command import run_command

TITLE = "\x1b]0;OWNED\x07"
HOSTILE = (TITLE, "\x1b[2J", "\x9b31m", "a\rb", "\b\b", "\u202eabc", "\u2066", "\u200b", "\x00", "\u2028")


def printed(*renderables: object) -> str:
    target = SafeConsole()
    target.file = io.StringIO()
    for item in renderables:
        target.print(item)
    return target.file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_holds_it(text: str) -> None:
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    table.add_row(Text(text))
    out = printed(text, Text(text), table, f"[link=http://x]{text}[/link]")
    for char in text:
        if not (char.isascii() and char.isprintable()):
            assert char not in out


def test_brackets_are_no_markup() -> None:
    assert printed("[bold]x[/bold] [/y] :smile:") == "[bold]x[/bold] [/y] :smile:\n"


def test_styles_and_progress_still_work() -> None:
    target = SafeConsole()
    target.file = io.StringIO()
    target._force_terminal = True
    target._color_system = target._color_system or 1  # type: ignore[assignment]
    with Progress(TextColumn("{task.description}", markup=False), console=target) as progress:
        progress.add_task(TITLE, total=1)
    out = target.file.getvalue()
    assert "\x1b[?25l" in out  # rich's own: the cursor is hidden
    assert TITLE not in out
    assert "\\u001b]0" in out


PROGRAM = f"""
import logging, warnings
from repro_rl.cli.terminal import clean_the_rest
clean_the_rest()
logging.basicConfig(format="%(message)s")
title = {TITLE!r}
warnings.warn("model " + title)
warnings.warn("old", FutureWarning)
logging.getLogger("transformers.x").warning("keys %s of %d", title, 3)
logging.getLogger("other").warning("wrong %d" + title, "x")
raise ValueError("lost " + title)
"""


def test_what_python_prints_itself() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    code = "\\u001b]0;OWNED\\u0007"
    assert done.returncode == 1
    assert "\x1b" not in done.stderr + done.stdout
    for line in (
        f"Careful: model {code}",
        "FutureWarning: old",
        f"keys {code} of 3",
        f"ValueError: lost {code}",
    ):
        assert line in done.stderr, line


def test_names_of_files_in_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ("report", f"{TITLE}run"),
        ("progress", f"{TITLE}run"),
        ("data", "webshop", "info", f"{TITLE}shop"),
        ("train", f"train.init={TITLE}"),
        ("train", f"{TITLE}.x=1"),
        ("play", TITLE),
        ("report", f"--{TITLE}"),
        ("eval", "x", "--checkpoint", "last", f"--judge{TITLE}"),
        ("view", "x", "--port", TITLE),
        (f"{TITLE}cmd",),
    ):
        code, text = run_command(capsys, monkeypatch, *arguments)
        assert code == 2, arguments
        assert "\x1b" not in text, arguments


def test_nobody_can_be_asked_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert not allowed("Really?")
    assert capsys.readouterr().err == ""
    assert app.info.name == "repro-rl"
    assert isinstance(console, SafeConsole)


def test_a_person_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro_rl.cli import show

    class Typed(io.StringIO):
        def isatty(self) -> bool:
            return True

    target = SafeConsole()
    target._force_terminal = True
    monkeypatch.setattr(show, "error_console", target)
    for line, answer in (("y\n", True), ("yes\n", True), ("\n", False), ("n\n", False), ("", False)):
        target.file = io.StringIO()
        monkeypatch.setattr("sys.stdin", Typed(line))
        assert allowed(f"Use {TITLE}?") is answer
        assert TITLE not in target.file.getvalue()


def test_plain_text_is_unchanged() -> None:
    assert visible("a\n\tb é 🧱") == "a\n\tb é 🧱"
