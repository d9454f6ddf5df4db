"""``repro-rl progress``: how good is the progress signal of recorded episodes?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repro_rl.cli.app import app
from repro_rl.cli.options import take_folders
from repro_rl.cli.show import bar, new_table, say, show_table, table_without, visible
from repro_rl.cli.terminal import careful


@app.command()
def progress(
    runs: Annotated[list[Path], typer.Argument(help="run folders, or single trajectory files (*.jsonl.gz)")],
    evals: Annotated[
        list[str] | None,
        typer.Option("--eval", help="evaluation by name, repeatable  \\[default: all of each run]"),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training/--no-training", help="also the recorded training episodes")
    ] = True,
    resamples: Annotated[int, typer.Option(min=100, help="bootstrap resamples")] = 1000,
    seed: Annotated[int, typer.Option(help="of the resampling")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder to write to  \\[default: <first run>/progress]")
    ] = None,
) -> None:
    """Measure online and retrospective progress against truth, outcome and advantages, with intervals."""
    from repro_rl.report.progress_page import write_progress
    from repro_rl.report.progress_tables import closeness_table
    from repro_rl.study.progress_report import analyse

    runs = take_folders(runs)
    with bar("progress") as counter:
        data = analyse(
            runs,
            evals or [],
            training=training,
            resamples=resamples,
            seed=seed,
            on_set=lambda name: counter.add(note=visible(name)),
        )
    first = runs[0] if runs[0].is_dir() else runs[0].parent
    closeness = closeness_table(data)
    if closeness.rows:
        show_table(table_without(closeness, ()))
    rows = [
        (f"{row['run']}, {row['name']} ({row['episodes']})", text)
        for row in data["sets"]
        for text in [*row["findings"], *map(careful, row["warnings"])]
    ]
    show_table(new_table("findings", ("episodes of", "finding"), rows, left=2))
    for path in write_progress(data, out or first / "progress"):
        say(f"{path}")
