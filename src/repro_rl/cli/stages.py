"""``repro-rl demos``, ``warmup`` and ``train``: the stages that make an agent."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.data_gguf import convert_checked
from repro_rl.cli.options import Out, Overrides, Source, read_config
from repro_rl.cli.show import MetricsNote, bar, say
from repro_rl.cli.terminal import careful
from repro_rl.errors import ConfigError, PreflightError, counted

if TYPE_CHECKING:
    from repro_rl.config import DemosSection, EnvSection, RunConfig

UNFINISHED_FILE = "unfinished.jsonl"  # there, while they are collected: the episodes so far

# Metrics beside the progress bars, and how they are called there.
WARMUP_METRICS = {
    "warmup/forward_loss": "forward loss",
    "warmup/action_accuracy": "actions right",
    "warmup/reflect_loss": "reflection loss",
    "eval/success": "success",
}
TRAIN_METRICS = {
    "rollout/success": "success",
    "rollout/entropy": "entropy",
    "update/kl": "KL",
    "reflect/valid": "reflections valid",
    "eval/success": "validation",
}


@app.command()
def demos(overrides: Overrides = None, source: Source = None, out: Out = Path("runs/demos")) -> None:
    """Collect demonstrations: expert episodes and labelled episodes of a noisy expert."""
    make_demos(read_config(source, overrides), out, remarks=True)


def make_demos(config: RunConfig, out: Path, *, remarks: bool = False) -> Path:
    """Collect demonstrations into ``out``, unless they are there already; returns ``out``.

    ``remarks``: say what ``preflight`` remarks on; commands with further stages have said it. Episodes are
    kept as they are played, so a command that was stopped goes on after the last one. Raises ConfigError when
    the folder holds demonstrations of other settings, PreflightError when another process makes them, and
    what ``preflight`` raises.
    """
    from repro_rl.demos import ANNOTATORS, BatchAnnotator
    from repro_rl.files import LOCK_FILE, only_writer, sweep_temporaries
    from repro_rl.run.folder_kind import check_kind

    check_kind(out, "demonstrations")
    section = config.demos
    annotator = ANNOTATORS.get(section.annotator)
    batch = annotator if isinstance(annotator, BatchAnnotator) else None
    key = _demos_key(config.env, section, config.seed, None if batch is None else batch.settings(config))
    if not _demos_exist(out, key):
        with only_writer(out / LOCK_FILE, "collection of demonstrations"):
            if not _demos_exist(out, key):  # another process may have been faster
                sweep_temporaries(out)
                _collect(config, out, key, remarks)
                return out
    elif any((out / name).exists() for name in (LOCK_FILE, UNFINISHED_FILE)):
        # The command that made them was killed at its very end. A read-only folder stays as it is.
        with suppress(OSError, PreflightError), only_writer(out / LOCK_FILE):
            (out / UNFINISHED_FILE).unlink(missing_ok=True)
    say(f"Demonstrations are in {out}.")
    return out


def _collect(config: RunConfig, out: Path, key: dict[str, Any], remarks: bool) -> None:
    """Play and label demonstrations, and write them into ``out``.

    ``key``: see ``_demos_key``; ``remarks``: see ``make_demos``.
    """
    from repro_rl.cli.api import annotation_notes
    from repro_rl.config.paths import base_entry
    from repro_rl.demos import CollectHooks, collect_demos, save_demos
    from repro_rl.demos.collect import summary
    from repro_rl.files import UnfinishedRows, key_of, write_json
    from repro_rl.files.names import DEMOS_FILE
    from repro_rl.run.panels import Use
    from repro_rl.run.preflight import preflight
    from repro_rl.run.setup import build_pool

    section = config.demos
    notes: dict[str, Any] = {}
    total = section.expert + section.wandering_episodes + section.winning + section.failing
    with closing(build_pool(config.env)) as pool:
        for line in preflight(config, pool.first, {Use.DEMOS}):
            if remarks:
                say(careful(line))
        panel = pool.first.panel(section.split)
        unfinished = UnfinishedRows(out / UNFINISHED_FILE, key_of([key, panel.digest]))
        with bar("demonstrations", total) as progress:
            hooks = CollectHooks(progress.add, progress.more, progress.add, notes, unfinished)
            experts, labelled = collect_demos(
                pool.first,
                panel.ids,
                section,
                seed=config.seed,
                config=config,
                hooks=hooks,
            )
    save_demos(out, experts, labelled)
    counts = {"expert": summary(experts), "labelled": summary(labelled), "annotation": notes or None}
    write_json(out / DEMOS_FILE, {"settings": key, "panel": panel.label(), **base_entry(out), **counts})
    unfinished.remove()
    for line in annotation_notes(notes, out / DEMOS_FILE):
        say(line)
    say(
        f"{counted(len(experts), 'expert episode')} and {counted(len(labelled), 'labelled one')} "
        f"(annotator: {section.annotator}) in {out}"
    )


def _demos_key(
    env: EnvSection, section: DemosSection, seed: int, annotator: dict[str, Any] | None
) -> dict[str, Any]:
    """What decides the demonstrations; ``annotator``: the settings of a batch annotator.

    The content of the files of episodes counts: they may lie elsewhere by then.
    """
    from repro_rl.demos.own import episodes_digests

    # Folders made before there were these settings are those of their defaults.
    unset = {name for name in ("recorded", "episodes") if not getattr(section, name)}
    key: dict[str, Any] = {
        "env": env.model_dump(mode="json"),
        "demos": section.model_dump(mode="json", exclude=unset),
        "seed": seed,
    }
    if section.episodes:
        key["demos"]["episodes_digests"] = episodes_digests(section.episodes)
        del key["demos"]["episodes"]
    return key if annotator is None else {**key, "annotator": annotator}


def _demos_exist(out: Path, key: dict[str, Any]) -> bool:
    """Whether ``out`` holds complete demonstrations.

    Raises ConfigError when another key made them, and when no command did: those are not replaced.
    """
    from repro_rl.demos.store import made_with
    from repro_rl.files.names import DEMOS_FILE, EXPERT_FILE
    from repro_rl.run.folder import change_lines, differences, flatten, same_places
    from repro_rl.text.digests import PACKAGE

    if not (out / EXPERT_FILE).exists():
        return False
    settings = made_with(out)
    if settings is None:
        if not (out / UNFINISHED_FILE).exists():
            raise ConfigError(
                f"{out} holds demonstrations that this command has not made ({DEMOS_FILE} is missing). Name "
                "another folder with --out; 'repro-rl warmup --demos' takes them as they are."
            )
        return False
    held = settings.get("demos")
    if isinstance(held, dict) and isinstance(held.get("episodes"), dict):  # by file, in an older version
        held["episodes_digests"] = list(held.pop("episodes").values())
    before, now = flatten(settings), flatten(key)
    before = same_places(before, now)
    # Demonstrations of older versions do not say which server labelled them, nor with which prompts.
    later = ("annotator.base_url", f"annotator.{PACKAGE}")
    now = {name: value for name, value in now.items() if name in before or name not in later}
    if changes := differences(before, now):
        raise ConfigError(
            f"{out} holds demonstrations made with other settings:\n{change_lines(changes)}\n"
            "Name another folder with --out."
        )
    return True


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
        model = run_warmup(config, demos_folder, out, show)
        if show.latest:
            progress.total(show.latest["iteration"])
    say(f"Warm start in {model}")
    return model


@app.command()
def train(
    overrides: Overrides = None,
    source: Source = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="repro, grpo, gigpo, ... (repro-rl list methods)",
            autocompletion=complete.methods,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            help="the model that training starts from: runs/warmup/model, a model folder, a GGUF file "
            "or a hub name. It "
            "decides; policy.model only says what a warmup starts from",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="run folder  \\[default: runs/<method>]")
    ] = None,
) -> None:
    """Stage 2: reinforcement learning with RePro-PO or any baseline, control or ablation."""
    given = {"method.name": method, "train.init": init}
    config = read_config(source, overrides, *((name, value) for name, value in given.items() if value))
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
