"""What a start of the command line loads, and that all its commands are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "tokenizers", "accelerate", "matplotlib", "scipy")
# What plays episodes: the viewer starts without it, so within a second.
PLAYING = (
    "repro_rl.envs",
    "repro_rl.rollout",
    "repro_rl.demos",
    "repro_rl.policy",
    "repro_rl.config",
    "gymnasium",
)
CODE = """
import sys
sys.argv = ["repro-rl", *{arguments!r}]
try:
    {statement}
except SystemExit as ended:
    assert not ended.code, ended.code
print("LOADED", *(name for name in {heavy!r} if name in sys.modules))
"""


def loaded(statement: str, *arguments: str, heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """Which of ``heavy`` a fresh process has imported after ``statement``."""
    code = CODE.format(arguments=list(arguments), statement=statement, heavy=heavy)
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


@pytest.mark.parametrize("module", ["repro_rl.cli.view", "repro_rl.report.view", "repro_rl.report.load"])
def test_the_viewer_needs_nothing_that_plays(module: str) -> None:
    assert loaded(f"import {module}", heavy=(*HEAVY, *PLAYING)) == []


def test_every_command_has_its_position_in_the_help() -> None:
    import typer

    import repro_rl.cli.commands  # noqa: F401  adds the commands
    from repro_rl.cli.app import COMMANDS, app

    group = typer.main.get_command(app)
    assert tuple(group.list_commands(None)) == COMMANDS
