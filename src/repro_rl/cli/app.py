"""The typer application."""

from __future__ import annotations

import typer

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
