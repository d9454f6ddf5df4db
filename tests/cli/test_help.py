"""What ``--help`` prints for every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from repro_rl.cli.app import plain_help
from repro_rl.cli.commands import app


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All commands with their path, groups included."""
    yield " ".join(path), group
    for name, inner in getattr(group, "commands", {}).items():  # a plain command has none
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def printed(text: str) -> str:
    """A help text as rich prints it."""
    return Text.from_markup(text).plain


def squeezed(text: str) -> str:
    return re.sub(r"[\s│]+", "", text)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_prints_every_word_and_no_type_of_a_flag(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # nothing is broken over two lines
    done = CliRunner().invoke(app, [*path.split(), "--help"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "bool" not in done.output
    assert squeezed(printed(COMMANDS[path].help)) in squeezed(done.output)
    for parameter in COMMANDS[path].params:
        text = getattr(parameter, "help", None)  # typer's own parameters have none
        if text and not getattr(parameter, "hidden", False):
            assert squeezed(printed(text)) in squeezed(done.output)


def test_defaults_in_words_are_printed() -> None:
    """Brackets are markup of rich unless they are escaped: the text in them is not printed."""
    texts = [p.help for command in COMMANDS.values() for p in command.params if getattr(p, "help", None)]
    assert sum("\\[default:" in text for text in texts) > 20
    assert not [text for text in texts if re.search(r"(?<!\\)\[default:", text)]


@pytest.mark.parametrize("path", ["", "plan"])
def test_brackets_of_a_sentence_are_printed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    done = CliRunner().invoke(app, [*path.split(), "--help"], catch_exceptions=False)
    assert "Needs repro-rl[train]." in done.output


def test_docstrings_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    group = typer.Typer(rich_markup_mode="rich")
    inner = typer.Typer()
    group.add_typer(inner, name="inner")

    @group.command()
    def shape() -> None:
        """Rewards [N, T] of [bold]all[/bold] rows, with repro-rl[plots]."""

    @inner.command()
    def other() -> None:
        """Settings [SECTION]; of /[a-z]/ one."""

    @inner.command(help="[bold]Said[/bold] by hand.")
    def third() -> None:
        """Not shown."""

    plain_help(group)
    assert (
        "Rewards [N, T] of [bold]all[/bold] rows, with repro-rl[plots]."
        in CliRunner().invoke(group, ["shape", "--help"]).output
    )
    text = CliRunner().invoke(group, ["inner", "--help"]).output
    assert "Settings [SECTION]; of /[a-z]/ one." in text
    assert "Said by hand." in text
