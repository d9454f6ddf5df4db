"""The typer application, and how errors reach a person."""

from __future__ import annotations

import os
import sys

import typer

from repro_rl.cli.show import console, error_console
from repro_rl.errors import ReproError

app = typer.Typer(
    name="repro-rl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    help="RePro: agents that act, look back, judge how far each step brought them, and learn from that.\n\n"
    "Start with [bold]repro-rl demo[/bold]: it trains a tiny agent from nothing and writes a report. "
    "The stages it runs are commands of their own: demos, warmup, train, eval, report. "
    "Settings are given as SECTION.KEY=VALUE after the options, e.g. [bold]train.lr=1e-3[/bold], "
    "or in a YAML file (--config). Every command continues where it was when you repeat it.",
)


def main() -> None:
    """Entry point. Errors of the package end with status 2 and no traceback; Ctrl-C with 130."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from repro_rl.cli import commands  # noqa: F401  adds the commands

    try:
        app()
    except ReproError as error:
        error_console.print(f"[bold red]{type(error).__name__}[/]", highlight=False)
        error_console.print(str(error), highlight=False, markup=False)
        if os.environ.get("REPRO_RL_TRACEBACK"):
            raise
        sys.exit(2)
    except KeyboardInterrupt:
        error_console.print("Interrupted. Repeat the command to continue from the last checkpoint.")
        sys.exit(130)
    finally:
        console.show_cursor(True)
