"""What ``--help`` prints for every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from repro_rl.cli.commands import app


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All commands with their path, groups included."""
    yield " ".join(path), group
    for name, inner in getattr(group, "commands", {}).items():  # a plain command has none
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def squeezed(text: str) -> str:
    return re.sub(r"[\s│]+", "", text)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_prints_every_word_and_no_type_of_a_flag(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # nothing is broken over two lines
    done = CliRunner().invoke(app, [*path.split(), "--help"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "bool" not in done.output
    for parameter in COMMANDS[path].params:
        text = getattr(parameter, "help", None)  # typer's own parameters have none
        if text and not getattr(parameter, "hidden", False):
            assert squeezed(text.replace("\\[", "[")) in squeezed(done.output)


def test_defaults_in_words_are_printed() -> None:
    """Brackets are markup of rich unless they are escaped: the text in them is not printed."""
    texts = [p.help for command in COMMANDS.values() for p in command.params if getattr(p, "help", None)]
    assert sum("\\[default:" in text for text in texts) > 20
    assert not [text for text in texts if re.search(r"(?<!\\)\[default:", text)]
