"""The typer application. The modules of the commands add theirs when they are imported (``commands``)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

import repro_rl
from repro_rl.cli.terminal import clean_message

# Of typer's own click or of another, which differs between its versions.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
# The order of `repro-rl --help`, whatever the order of the imports.
COMMANDS = (
    *("demos", "warmup", "train", "eval", "report", "doctor", "play", "demo"),
    *("compare", "pilot", "plan", "progress", "view", "panel", "data", "verl"),
    *("list", "settings", "new"),
)


class PlainFlags:
    """Help without a type behind the options that take no value; some versions of typer print one."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the command it is mixed into
        for param in params:
            if param.param_type_name == "option" and param.is_flag and param.metavar is None:
                param.metavar = ""
        return params


class PlainCommand(PlainFlags, TyperCommand):
    """A command with ``PlainFlags``."""


class PlainGroup(PlainFlags, TyperGroup):
    """A group with ``PlainFlags``."""


def plain_help(group: typer.Typer) -> None:
    """Give the commands of a group, and those of the groups in it, ``PlainFlags``.

    Their docstrings are printed as they stand: in rich's markup, ``repro-rl[train]`` would lose ``[train]``.
    """
    for command in group.registered_commands:
        command.cls = PlainCommand
        if command.help is None and command.callback is not None:
            command.help = escape(inspect.getdoc(command.callback) or "")
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        inner.typer_instance.info.cls = PlainGroup
        plain_help(inner.typer_instance)


class CommandGroup(PlainGroup):
    """The commands in the order of ``COMMANDS``; others behind them."""

    def list_commands(self, ctx: Any) -> list[str]:
        others = [name for name in super().list_commands(ctx) if name not in COMMANDS]
        return [name for name in COMMANDS if name in self.commands] + others

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _clean_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _clean_errors():
            return super().invoke(ctx)


@contextmanager
def _clean_errors() -> Iterator[None]:
    """Wrong arguments are printed by typer itself, and may be names of files that others chose."""
    try:
        yield
    except USAGE_ERROR as error:
        raise clean_message(error) from error.__cause__


app = typer.Typer(
    name="repro-rl",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="RePro: agents that act, look back, judge how far each step brought them, and learn from that.\n\n"
    "Start with [bold]repro-rl demo[/bold]: it trains a tiny agent from nothing and writes a report. "
    "The stages it runs are commands of their own: demos, warmup, train, eval, report. "
    "Settings are given as SECTION.KEY=VALUE after the options, e.g. [bold]train.lr=1e-3[/bold], "
    "or in a YAML file (--config). Every command continues where it was when you repeat it.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"repro-rl {repro_rl.__version__}")
        raise typer.Exit


@app.callback(help=app.info.help)
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and end"),
    ] = False,
) -> None:
    del version  # its callback has done the work
