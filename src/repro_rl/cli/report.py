"""``repro-rl report``: one page about one or several runs, or about a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from repro_rl.cli.app import app
from repro_rl.cli.options import take_folders
from repro_rl.cli.show import new_table, say, show_table
from repro_rl.cli.terminal import careful
from repro_rl.errors import ConfigError
from repro_rl.files.names import CONFIG_FILE, EVALUATIONS, METRICS_FILE
from repro_rl.run.folder_kind import demo_runs


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
    from repro_rl.report.page import check_replaced
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
    folders = [run for path in runs for run in runs_in(path)]
    if out is None:
        check_replaced(folders)
    page = build_report(folders, out)
    show_evaluations(folders)
    say(f"Report: {page}")


def runs_in(path: Path) -> list[Path]:
    """A run folder by itself; of a folder that 'repro-rl demo' made, its training runs, the first one first.

    Raises ConfigError for a folder without anything to report on.
    """
    if any((path / name).exists() for name in (CONFIG_FILE, METRICS_FILE, EVALUATIONS)):
        return [path]
    runs = demo_runs(path)
    if not runs:
        raise ConfigError(
            f"{path} is no run: it holds none of config.yaml, metrics.jsonl and eval. Give a folder that "
            "'repro-rl train', 'warmup', 'eval', 'demo' or 'compare' wrote."
        )
    return runs


def show_evaluations(runs: Sequence[Path]) -> None:
    """The evaluations of the runs as a table, what its figures do not share, and the runs without any."""
    from repro_rl.report.load import read_runs
    from repro_rl.report.tables import evaluated, headline, table_warnings
    from repro_rl.run.evaluations import dtype_notes

    read = read_runs(list(runs))
    several = bool(dtype_notes(row for run in read for row in run.evaluations))
    rows = [
        (row.run, row.name, row.panel, row.episodes, row.text, row.length, row.invalid)
        + ((row.dtype,) if several else ())
        for run in read
        for row in evaluated(run)
    ]
    head = ("run", "checkpoint", "panel", "episodes", "success, 95 % interval", "steps", "invalid")
    if rows:
        show_table(new_table("evaluations", (*head, "dtype") if several else head, rows, left=3))
    for line in table_warnings(read):
        say(careful(line))
    for run in read:
        if not run.evaluations:
            say(f"{run.label}: {headline(run)}")
