"""``repro-rl verl``: the same methods inside the verl trainer (docs/verl.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from repro_rl.cli.app import app
from repro_rl.cli.commands import Overrides
from repro_rl.cli.show import say

verl_app = typer.Typer(no_args_is_help=True, help="The same methods inside the verl trainer (docs/verl.md).")
app.add_typer(verl_app, name="verl")

Recipe = Annotated[
    str,
    typer.Option(
        "--config", "-c", help="a verl recipe, a recipe of ours, or a YAML file", show_default=False
    ),
]
Method = Annotated[str | None, typer.Option("--method", "-m", help="repro, grpo, gigpo, meta, l1, l2, ...")]


def _recipe(
    config: str,
    overrides: list[str] | None,
    method: str | None,
    init: str | None = None,
    hardware: str | None = None,
) -> Any:
    from repro_rl.integrations.verl.recipe import load_verl_recipe
    from repro_rl.train.build import set_threads

    more = [f"method.name={method}"] if method else []
    more += [f"train.init={init}"] if init else []
    recipe = load_verl_recipe(config, [*more, *(overrides or [])], hardware)
    set_threads(recipe.config)
    return recipe


@verl_app.command()
def data(
    config: Recipe,
    overrides: Overrides = None,
    method: Method = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to")] = Path("runs/verl/data"),
) -> None:
    """Write the task files: which task is played when, and the validation panel, with their digests."""
    from repro_rl.integrations.verl.data import write_tasks
    from repro_rl.train.build import build_pool

    settings = _recipe(config, overrides, method).config
    for line in write_tasks(settings, build_pool(settings), out):
        say(line)


@verl_app.command("sft-data")
def sft_data(
    config: Recipe,
    overrides: Overrides = None,
    demos: Annotated[Path, typer.Option("--demos", help="folder made by 'repro-rl demos'")] = Path(
        "runs/demos"
    ),
    out: Annotated[Path, typer.Option("--out", "-o", help="file to write")] = Path("runs/verl/sft.parquet"),
) -> None:
    """Write the Retrospection Warmup as rows for verl's supervised trainer: one a step, one a reflection."""
    from repro_rl.integrations.verl.data import sft_rows, write_parquet
    from repro_rl.train.build import build_pool

    settings = _recipe(config, overrides, None).config
    rows = sft_rows(settings, demos, build_pool(settings).first)
    write_parquet(out, rows)
    kinds = [row["kind"] for row in rows]
    say(f"{out}: {kinds.count('forward')} steps and {kinds.count('reflect')} reflections")


@verl_app.command()
def train(
    config: Recipe,
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
    from repro_rl.integrations.verl.launch import launch_command, prepare_run, run_verl

    recipe = _recipe(config, overrides, method, init, hardware)
    for line in prepare_run(recipe, out.resolve()):
        say(line)
    command, variables = launch_command(out.resolve(), verl or [])
    if prepare:
        say(" ".join([*(f"{key}={value}" for key, value in variables.items()), *command]))
        return
    raise typer.Exit(run_verl(command, variables))
