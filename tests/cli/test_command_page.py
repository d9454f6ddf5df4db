"""docs/cli.md lists every command, and every command printed in the pages can be parsed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from repro_rl.cli.commands import app
from repro_rl.config import RunConfig
from repro_rl.config.recipe_files import recipe_names
from repro_rl.config.values import type_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM: Any = typer.main.get_command(app)
# Whose words are not settings of a run, but an environment's.
NO_SETTINGS = ("play", "doctor", "list", "settings", "show", "export")
# Words of a page that stand for the reader's own.
PLACEHOLDERS = re.compile(r"…|\.\.\.|[A-Z]{4,}|\$|<|\[")


def commands(group: Any = PROGRAM, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its name."""
    for name in group.list_commands(None):
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def printed() -> list[tuple[str, str]]:
    """(page, command line) of every ``repro-rl`` line in the code blocks of the pages."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line) for line in lines if re.match(r"(\w+=\S+ )*repro-rl\s+\w", line)]
    return found


def parsed(line: str) -> tuple[str, list[str]]:
    """The command and its arguments, without comments and what is before it."""
    words = shlex.split(line, comments=True)
    words = words[words.index("repro-rl") + 1 :]
    stop = next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";", "&")), len(words))
    return " ".join(words[:stop]), words[:stop]


def test_the_page_lists_every_command_with_its_own_words() -> None:
    rows = []
    for name, command in commands():
        sentence = " ".join((command.help or "").replace("\\[", "[").strip().split("\n\n")[0].split())
        rows.append(f"| `repro-rl {name}` | {sentence} |")
    listed = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `repro-rl ")
    ]
    assert listed == rows


def test_there_are_commands_to_check() -> None:
    assert len(printed()) > 60


@pytest.mark.parametrize(("page", "line"), printed())
def test_a_printed_command_is_one_that_there_is(page: str, line: str) -> None:
    _, words = parsed(line)
    command: Any = PROGRAM
    while hasattr(command, "commands"):
        assert words, line
        assert words[0] in command.commands, f"{page}: there is no command {words[0]!r} in: {line}"
        command = command.commands[words.pop(0)]
    more = [i for i, word in enumerate(words) if word in ("...", "…") and not words[i - 1].startswith("-")]
    words = [word for i, word in enumerate(words) if i not in more]  # "and so on", but not an option's value
    with command.make_context("repro-rl", list(words), resilient_parsing=False) as context:
        source = context.params.get("source")
        overrides = context.params.get("overrides") or context.params.get("words") or []
    if isinstance(source, str) and not source.endswith((".yaml", ".yml")) and not PLACEHOLDERS.search(source):
        assert source in recipe_names() or (ROOT / "src/repro_rl/recipes/verl" / f"{source}.yaml").exists(), (
            line
        )
    for word in overrides if command.name not in NO_SETTINGS else []:
        key, sign, _ = str(word).partition("=")
        if sign and not PLACEHOLDERS.search(key) and not key.startswith("env.settings"):
            assert type_of(RunConfig, key.split(".")) is not None, f"{page}: no setting {key!r} in: {line}"
