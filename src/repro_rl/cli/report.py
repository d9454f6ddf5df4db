"""``repro-rl report``: one page about one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repro_rl.cli.app import app
from repro_rl.cli.show import say


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="run folders; several are compared on one page")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file  [default: <first run>/report.html]")
    ] = None,
) -> None:
    """Write one self-contained HTML page: curves, reward terms, progress quality, browsable trajectories."""
    from repro_rl.report import build_report

    say(f"Report: {build_report(runs, out)}")
