"""What a start of the command line loads, and that all its commands are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "tokenizers", "accelerate", "matplotlib", "scipy")
CODE = """
import sys
sys.argv = ["repro-rl", *{arguments!r}]
try:
    {statement}
except SystemExit as ended:
    assert not ended.code, ended.code
print("LOADED", *(name for name in {heavy!r} if name in sys.modules))
"""


def loaded(statement: str, *arguments: str) -> list[str]:
    """Which of ``HEAVY`` a fresh process has imported after ``statement``."""
    code = CODE.format(arguments=list(arguments), statement=statement, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    return line.split()[1:]


@pytest.mark.parametrize(
    "command", [(), ("train",), ("pilot",), ("compare",), ("data", "webshop"), ("verl",)]
)
def test_help_needs_no_deep_learning_library(command: tuple[str, ...]) -> None:
    assert loaded("from repro_rl.cli import main; main()", *command, "--help") == []


@pytest.mark.parametrize(
    "module",
    [
        "repro_rl",
        "repro_rl.cli",
        "repro_rl.rollout",
        "repro_rl.demos",
        "repro_rl.study.evaluate",
        "repro_rl.report",
    ],
)
def test_an_import_needs_no_deep_learning_library(module: str) -> None:
    assert loaded(f"import {module}") == []


def test_every_command_has_its_position_in_the_help() -> None:
    import typer

    import repro_rl.cli.commands  # noqa: F401  adds the commands
    from repro_rl.cli.app import COMMANDS, app

    group = typer.main.get_command(app)
    assert tuple(group.list_commands(None)) == COMMANDS
