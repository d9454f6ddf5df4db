"""``repro-rl demos``, ``warmup`` and ``train``: the stages that make an agent."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repro_rl.cli.app import app
from repro_rl.cli.data_gguf import convert_checked
from repro_rl.cli.options import Init, Method, Out, Overrides, Source, chosen, read_config
from repro_rl.cli.show import MetricsNote, bar, say
from repro_rl.cli.terminal import careful
from repro_rl.errors import ConfigError, counted

if TYPE_CHECKING:
    from repro_rl.config import RunConfig

# Metrics beside the progress bars, and how they are called there.
WARMUP_METRICS = {
    "warmup/forward_loss": "forward loss",
    "warmup/action_accuracy": "actions right",
    "warmup/reflect_loss": "reflection loss",
    "validation/success": "success",
}
TRAIN_METRICS = {
    "rollout/success": "success",
    "rollout/entropy": "entropy",
    "update/kl": "KL",
    "reflect/valid": "reflections valid",
    "validation/success": "validation",
}


@app.command()
def demos(overrides: Overrides = None, source: Source = None, out: Out = Path("runs/demos")) -> None:
    """Collect demonstrations: expert episodes and labelled episodes of a noisy expert."""
    run_demos_stage(read_config(source, overrides), out, remarks=True)


def run_demos_stage(config: RunConfig, out: Path, *, remarks: bool = False) -> Path:
    """Make demonstrations behind a progress bar, see ``run.demonstrations.make_demos``; returns ``out``.

    ``remarks``: say what ``preflight`` remarks on; commands with further stages have said it.
    """
    from repro_rl.cli.api import annotation_notes
    from repro_rl.demos import CollectHooks
    from repro_rl.files.names import DEMOS_FILE
    from repro_rl.run.demonstrations import DemosHooks, make_demos

    with ExitStack() as stack:

        def begin(total: int) -> CollectHooks:
            progress = stack.enter_context(bar("demonstrations", total))
            resumed = partial(progress.continuing, out)
            return CollectHooks(progress.add, progress.more, progress.add, on_resumed=resumed)

        def remark(line: str) -> None:
            if remarks:
                say(careful(line))

        made = make_demos(config, out, DemosHooks(remark, begin))
    if made is None:
        say(f"Demonstrations are in {out}.")
        return out
    for line in annotation_notes(made.notes, out / DEMOS_FILE):
        say(line)
    wandering = config.demos.wandering_episodes
    kinds = (config.demos.expert, "of the expert"), (wandering, "wandering")
    own = made.experts - config.demos.expert - wandering
    parts = [f"{number} {kind}" for number, kind in (*kinds, (own, "of your own")) if number]
    say(
        f"{counted(made.experts, 'episode')} to imitate ({', '.join(parts) or 'none'}) and "
        f"{counted(made.labelled, 'labelled one')} (annotator: {config.demos.annotator}) in {out}"
    )
    return out


@app.command()
def warmup(
    overrides: Overrides = None,
    source: Source = None,
    demos_folder: Annotated[Path, typer.Option("--demos", help="folder made by 'repro-rl demos'")] = Path(
        "runs/demos"
    ),
    out: Out = Path("runs/warmup"),
) -> None:
    """Stage 1: teach the formats by joint supervised training on forward and reflection samples."""
    run_warmup_stage(read_config(source, overrides), demos_folder, out)


def run_warmup_stage(config: RunConfig, demos_folder: Path, out: Path) -> Path:
    """Warm up behind a progress bar, continuing what ``out`` holds; returns the model's folder."""
    from repro_rl.run.panels import warmup_validates
    from repro_rl.train import run_warmup

    convert_checked(config, config.policy.model, warmup_validates(config.warmup), trains=True)
    with bar("warmup", config.warmup.updates) as progress:
        show = MetricsNote(progress, WARMUP_METRICS)
        model = run_warmup(config, demos_folder, out, show, on_text=progress.say)
        if show.latest:
            progress.total(show.latest["iteration"])
    say(f"Warm start in {model}")
    return model


@app.command()
def train(
    overrides: Overrides = None,
    source: Source = None,
    method: Method = None,
    init: Init = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="run folder  \\[default: runs/<method>]")
    ] = None,
) -> None:
    """Stage 2: reinforcement learning with RePro-PO or any baseline, control or ablation."""
    config = read_config(source, overrides, *chosen(method, init))
    check_start(overrides or [], init, config)
    run_train_stage(config, out or Path("runs") / config.method.name)


def check_start(overrides: Sequence[str], init: str | None, config: RunConfig) -> None:
    """One command must not name two models to start from. Raises ConfigError; see ``lineage.check_base``."""
    from repro_rl.config.values import name_in
    from repro_rl.run.lineage import check_base
    from repro_rl.run.model_paths import run_of

    named = set(map(name_in, overrides))
    if init is not None and "train.init" in named and config.train.init != init:
        raise ConfigError(
            f"--init {init} and train.init={config.train.init} name two models to start from; give one."
        )
    if config.train.init is None:
        return
    if "policy.model" in named:
        check_base(config.policy.model, config.train.init)
    elif config.policy.model not in ("tiny", config.train.init) and run_of(config.train.init) is None:
        say(f"Training starts from {config.train.init}, not from policy.model={config.policy.model}.")


def run_train_stage(config: RunConfig, out: Path) -> Path:
    """Train behind a progress bar, continuing what ``out`` holds; returns ``out``."""
    from repro_rl.run.panels import training_uses
    from repro_rl.train import run_training

    convert_checked(config, config.train.init, training_uses(config.train), trains=True)
    with bar(f"train {config.method.name}", config.train.iterations) as progress:
        run = run_training(config, out, MetricsNote(progress, TRAIN_METRICS), progress.say)
    if run.best:
        say(f"Best validation success {run.best[0]:.3f} at iteration {run.best[1]}; run folder {out}")
    return out
