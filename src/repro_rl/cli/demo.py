"""``repro-rl demo``: all stages, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repro_rl.cli.app import app
from repro_rl.cli.doctor import environments_work
from repro_rl.cli.evaluate import run_eval_stage
from repro_rl.cli.options import Out, Overrides, Source, read_config
from repro_rl.cli.show import console, eval_table, say
from repro_rl.cli.stages import make_demos, run_train_stage, run_warmup_stage
from repro_rl.errors import ReproError

CHECKPOINTS = ("warm-start", "best", "last")  # those evaluated, the first one to compare the last with


@app.command()
def demo(
    overrides: Overrides = None,
    source: Source = None,
    method: Annotated[str, typer.Option("--method", "-m", help="what to train with")] = "repro",
    out: Out = Path("runs/demo"),
) -> None:
    """The whole method on one environment: demonstrations, warmup, RePro-PO, evaluation, report."""
    from repro_rl.policy.precision import resolve_device
    from repro_rl.report import build_report
    from repro_rl.run.panels import Use, check_panels
    from repro_rl.run.setup import build_pool
    from repro_rl.run.trackers import check_callbacks

    config = read_config(source, overrides, ("method.name", method))
    if not environments_work([config.env.name], config.env.settings, short=True):
        raise ReproError(
            f"Environment {config.env.name!r} fails its check; run 'repro-rl doctor {config.env.name}'."
        )
    resolve_device(config.policy.device)  # and not when the demonstrations are there
    panel = build_pool(config.env).first.panel
    check_panels(config, panel, set(Use))  # the training says what cannot be meant
    check_callbacks(config.train)
    folder = make_demos(config, out / "demos")
    model = run_warmup_stage(config, folder, out / "warmup")
    config = read_config(source, overrides, ("method.name", method), ("train.init", str(model)))
    run = run_train_stage(config, out / "train")
    results = [run_eval_stage(config, run, checkpoint, run) for checkpoint in CHECKPOINTS]
    console.print(eval_table(results))
    page = build_report([run])
    before, after = results[0], results[-1]
    ratio = after["success"] / before["success"] if before["success"] else float("inf")
    say(
        f"Held-out success {before['success']:.3f} → {after['success']:.3f} ({ratio:.1f} times) "
        f"on {after['panel']}, seed {config.seed}, method {config.method.name}.",
    )
    say(f"Open the report: {page}")
