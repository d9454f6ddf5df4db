"""``repro-rl demo``: all stages, one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.doctor import environments_work
from repro_rl.cli.evaluate import run_eval_stage
from repro_rl.cli.options import Out, Overrides, Source, read_config
from repro_rl.cli.show import gain_sentence, say, show_evals
from repro_rl.cli.stages import run_demos_stage, run_train_stage, run_warmup_stage
from repro_rl.errors import ConfigError, ReproError

if TYPE_CHECKING:
    from repro_rl.config import RunConfig

PLAIN = re.compile(r"[\w.,:/=+@%-]+")  # words that no shell changes
CHECKPOINTS = ("warm-start", "best", "last")  # those evaluated, the first one to compare the last with


@app.command()
def demo(
    overrides: Overrides = None,
    source: Source = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="what to train with  \\[default: that of the settings]",
            autocompletion=complete.methods,
        ),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="another method from the same warm start, on the same page; repeatable",
            autocompletion=complete.methods,
        ),
    ] = None,
    out: Out = Path("runs/demo"),
) -> None:
    """The whole method on one environment: demonstrations, warmup, RePro-PO, evaluation, report."""
    from repro_rl.report import build_report
    from repro_rl.run.folder_kind import check_kind

    methods = [method or read_config(source, overrides).method.name, *(others or [])]
    if len(set(methods)) < len(methods):
        raise ConfigError(f"Methods {', '.join(methods)}: one is named twice; name each once.")
    check_kind(out, "demo")
    configs = [read_config(source, overrides, ("method.name", name)) for name in methods]
    held_out = _check(configs)
    folder = run_demos_stage(configs[0], out / "demos")
    model = run_warmup_stage(configs[0], folder, out / "warmup")
    runs: list[Path] = []
    results: list[list[dict[str, Any]]] = []
    for name in methods:
        config = read_config(source, overrides, ("method.name", name), ("train.init", str(model)))
        run = run_train_stage(config, out / (f"train-{name}" if runs else "train"))
        results.append([run_eval_stage(config, run, checkpoint, run) for checkpoint in CHECKPOINTS])
        runs.append(run)
    show_evals(_rows(methods, results))
    page = build_report(runs)
    for name, result in zip(methods, results, strict=True):
        say(f"{gain_sentence(result, held_out=held_out)} Seed {configs[0].seed}, method {name}.")
    if len(methods) > 1:
        say("The warm start is one model; its success differs where the prompts of the methods do.")
        say(f"One seed says little: '{study_command(source, methods, overrides or [])}' runs five.")
    say(f"Open the report: {page}")


def study_command(source: str | None, methods: Sequence[str], overrides: Sequence[str]) -> str:
    """The command that compares ``methods`` over seeds in the demo's environment, as a person types it.

    Of ``overrides`` it has those that say which environment is meant: ``plugins`` and ``env``.
    """
    from repro_rl.config.recipe_files import DEFAULT_RECIPE
    from repro_rl.config.values import name_in

    kept = [word for word in overrides if name_in(word).partition(".")[0] in ("plugins", "env")]
    recipe = [] if source in (None, DEFAULT_RECIPE) else ["-c", str(source)]
    words = [*recipe, *(word for name in methods for word in ("-m", name)), "--seeds", "0-4", *kept]
    return (
        f"repro-rl compare {' '.join(word if PLAIN.fullmatch(word) else json.dumps(word) for word in words)}"
    )


def _check(configs: Sequence[RunConfig]) -> bool:
    """What would stop a later stage stops the command now. ``configs``: of the methods. Raises ReproError.

    Returns whether the tasks of the evaluation are of another split than those that are trained on.
    """
    from repro_rl.policy.loading.precision import resolve_device
    from repro_rl.run.panels import Use, eval_panel
    from repro_rl.run.preflight import check_installed, preflight
    from repro_rl.run.setup import build_pool

    config = configs[0]
    if not environments_work([config.env.name], config.env.settings, config.eval.split, short=True):
        raise ReproError(
            f"Environment {config.env.name!r} fails its check; run 'repro-rl doctor {config.env.name}'."
        )
    resolve_device(config.policy.device)  # and not when the demonstrations are there
    with closing(build_pool(config.env)) as pool:
        for of_method in configs:
            preflight(of_method, pool.first, set(Use))  # the training says what cannot be meant
        check_installed(config)
        split = eval_panel(config.eval, pool.panel).split
    return split not in (config.train.split, config.demos.split)


def _rows(methods: Sequence[str], results: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The results of all methods for one table: those after the first carry the method's name."""
    first, *others = zip(methods, results, strict=True)
    named = [{**row, "name": f"{name}, {row['name']}"} for name, rows in others for row in rows]
    return [*first[1], *named]
