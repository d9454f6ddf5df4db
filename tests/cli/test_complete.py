"""What the shell offers behind a command's words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from repro_rl.cli.commands import app


def leaves(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that is no group, by its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield path + name, command


PROGRAM: Any = typer.main.get_command(app)
CONTEXT = typer.Context(PROGRAM)


def offered(words: str) -> list[str]:
    """The answers of the program to bash, the last of ``words`` being typed."""
    typed = f"repro-rl {words}"
    env = {"_REPRO_RL_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = CliRunner().invoke(app, [], prog_name="repro-rl", env=env)
    return done.output.split()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("demos -c sokoban-ti", "sokoban-tiny"),
        ("eval x -c webshop-q", "webshop-qwen2.5"),
        ("demo --with gig", "gigpo"),
        ("compare sokoban-r", "sokoban-rare"),
        ("compare train.lr", "train.lr="),
        ("compare -m repro -m grp", "grpo"),
        ("plan paper/sok", "paper/sokoban-4b"),
        ("panel show web", "webshop"),
        ("panel export alf", "alfworld"),
        ("doctor sok", "sokoban"),
        ("list rec", "recipes"),
        ("settings eval.val", "eval.validation_tasks"),
    ],
)
def test_names_are_offered(words: str, answer: str) -> None:
    assert answer in offered(words)


def named(kind: str) -> list[Any]:
    """Parameters of all commands with the option ``kind``."""
    found = [(path, p) for path, command in leaves(PROGRAM) for p in command.params if kind in p.opts]
    return [pytest.param(parameter, id=path) for path, parameter in found]


@pytest.mark.parametrize("parameter", named("--config"))
def test_every_option_for_a_recipe_offers_recipes(parameter: Any) -> None:
    assert "sokoban-tiny" in {item.value for item in parameter.shell_complete(CONTEXT, "sokoban-t")}


@pytest.mark.parametrize("parameter", named("--method"))
def test_every_option_for_a_method_offers_methods(parameter: Any) -> None:
    assert "gigpo" in {item.value for item in parameter.shell_complete(CONTEXT, "gig")}
