"""``repro-rl verl``: the same methods inside the verl trainer (docs/verl.md)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.options import Method, Overrides
from repro_rl.cli.show import say
from repro_rl.cli.terminal import careful
from repro_rl.errors import counted

if TYPE_CHECKING:
    from repro_rl.integrations.verl.recipe import VerlRecipe

verl_app = typer.Typer(no_args_is_help=True, help="The same methods inside the verl trainer (docs/verl.md).")
app.add_typer(verl_app, name="verl")

Source = Annotated[
    str,
    typer.Option(
        "--config",
        "-c",
        help="a verl recipe, a recipe of ours, or a YAML file",
        show_default=False,
        autocompletion=complete.recipes,
    ),
]


def _recipe(
    source: str,
    overrides: list[str] | None,
    method: str | None = None,
    init: str | None = None,
    hardware: str | None = None,
    *,
    trains: bool = True,
) -> VerlRecipe:
    """Settings of both trainers; without ``trains`` those of rows for the supervised one."""
    from repro_rl.integrations.verl.recipe import checked, checked_for_rows, load_verl_recipe

    given = {"method.name": method, "train.init": init}
    defaults = [(name, value) for name, value in given.items() if value]
    return load_verl_recipe(
        source, [*defaults, *(overrides or [])], hardware, checked if trains else checked_for_rows
    )


@verl_app.command()
def data(
    source: Source,
    overrides: Overrides = None,
    method: Method = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to")] = Path("runs/verl/data"),
) -> None:
    """Write the task files: which task is played when, and the validation panel, with their digests."""
    from repro_rl.integrations.verl.data import require_pyarrow, write_tasks
    from repro_rl.run.panels import Use
    from repro_rl.run.preflight import preflight
    from repro_rl.run.setup import set_up

    config = _recipe(source, overrides, method).config
    require_pyarrow()
    with closing(set_up(config)) as setup:
        for line in preflight(config, setup.pool.first, {Use.TRAIN, Use.VALIDATION}):
            say(careful(line))
        for line in write_tasks(setup, out):
            say(line)


@verl_app.command("sft-data")
def sft_data(
    source: Source,
    overrides: Overrides = None,
    demos: Annotated[Path, typer.Option("--demos", help="folder made by 'repro-rl demos'")] = Path(
        "runs/demos"
    ),
    out: Annotated[Path, typer.Option("--out", "-o", help="file to write")] = Path("runs/verl/sft.parquet"),
) -> None:
    """Write the Retrospection Warmup as rows for verl's supervised trainer: one a step, one a reflection."""
    from repro_rl.integrations.verl.data import require_pyarrow, sft_rows, write_parquet
    from repro_rl.integrations.verl.rendering import row_form
    from repro_rl.run.setup import set_up

    config = _recipe(source, overrides, trains=False).config
    require_pyarrow()
    with closing(set_up(config)) as setup:
        form, remarks = row_form(setup)
        for line in remarks:
            say(careful(line))
        rows = sft_rows(setup, demos, form)
    write_parquet(out, rows)
    kinds = [row["kind"] for row in rows]
    steps, reflections = kinds.count("forward"), kinds.count("reflect")
    say(f"{out}: {counted(steps, 'step')} and {counted(reflections, 'reflection')}")


@verl_app.command()
def train(
    source: Source,
    overrides: Overrides = None,
    method: Method = None,
    init: Annotated[
        str | None, typer.Option("--init", help="model to start from: a folder or a hub name")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="run folder")] = Path("runs/verl/train"),
    hardware: Annotated[
        str | None, typer.Option(help="1gpu, 8gpu, 2nodes, or a YAML file of verl settings")
    ] = None,
    verl: Annotated[
        list[str] | None, typer.Option("--verl", help="a setting of verl, e.g. --verl trainer.nnodes=2")
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="write data and settings, print the command, do not run it")
    ] = False,
) -> None:
    """Write data and settings into the run folder and run verl's own trainer on them; repeat to continue."""
    from repro_rl.integrations.verl.launch import (
        command_text,
        launch_command,
        prepare_run,
        require_verl,
        run_verl,
    )
    from repro_rl.run.folder import writing_run

    recipe = _recipe(source, overrides, method, init, hardware)
    if not prepare:
        require_verl()
    with writing_run(out.resolve()):
        for line in prepare_run(recipe, out.resolve(), verl or []):
            say(line)
        command, variables = launch_command(out.resolve(), verl or [])
        if not prepare:
            raise typer.Exit(run_verl(command, variables))
    say(command_text(command, variables))
