"""``repro-rl report``: one page about one or several runs, or about a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from repro_rl.cli.app import app
from repro_rl.cli.options import take_folders
from repro_rl.cli.show import new_table, say, show_table
from repro_rl.errors import ConfigError


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="run folders; several are compared on one page. Or the folder of a study or demo"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file  \\[default: <first run>/report.html]")
    ] = None,
) -> None:
    """Write one self-contained HTML page: curves, reward terms, progress quality, browsable trajectories."""
    from repro_rl.cli.compare import write_study_pages
    from repro_rl.report import build_report
    from repro_rl.study.folder import FILE

    runs = take_folders(runs)
    studies = [path for path in runs if (path / FILE).is_file()]
    if studies:
        if len(runs) > 1 or out is not None:
            raise ConfigError(
                f"{studies[0]} is a study, whose page is comparison.html in it; give it alone, without --out."
            )
        write_study_pages(studies[0])
        return
    folders = [run_in(path) for path in runs]
    page = build_report(folders, out)
    show_evaluations(folders)
    say(f"Report: {page}")


def run_in(path: Path) -> Path:
    """A run folder, or the training run in a folder that 'repro-rl demo' made."""
    trained = path / "train"
    is_run = any((path / name).exists() for name in ("config.yaml", "metrics.jsonl", "eval"))
    return trained if not is_run and (trained / "config.yaml").is_file() else path


def show_evaluations(runs: Sequence[Path]) -> None:
    """The evaluations of the runs as a table, and a sentence a run where it has none."""
    from repro_rl.report.load import read_runs
    from repro_rl.report.tables import evaluated, headline

    read = read_runs(list(runs))
    rows = [
        (row.run, row.name, row.panel, row.episodes, row.text, row.length, row.invalid)
        for run in read
        for row in evaluated(run)
    ]
    head = ("run", "checkpoint", "panel", "episodes", "success, 95 % interval", "steps", "invalid")
    if rows:
        show_table(new_table("evaluations", head, rows, left=3))
    for run in read:
        if not run.evaluations:
            say(f"{run.label}: {headline(run)}")
