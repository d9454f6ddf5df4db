"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from repro_rl.cli.app import app
from repro_rl.cli.data import data_app
from repro_rl.cli.show import bar, console, eval_table, numbers, say
from repro_rl.errors import ConfigError, ReproError

app.add_typer(data_app, name="data")

Config = Annotated[
    str | None,
    typer.Option(
        "--config", "-c", help="a YAML file, or the name of a built-in recipe", show_default="sokoban-tiny"
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="settings, e.g. seed=1")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="folder to write to (continued if it exists)")]

TRAIN_NOTE = {
    "rollout/success": "success",
    "rollout/entropy": "entropy",
    "update/kl": "KL",
    "reflect/valid": "reflections valid",
    "eval/success": "validation",
}


def _config(config: str | None, overrides: list[str] | None, *more: str) -> Any:
    from repro_rl.config import load_config
    from repro_rl.train.build import set_threads

    settings = load_config(config, [*more, *(overrides or [])])
    set_threads(settings)
    return settings


@app.command()
def demos(overrides: Overrides = None, config: Config = None, out: Out = Path("runs/demos")) -> None:
    """Collect demonstrations: expert episodes and labelled episodes of a noisy expert."""
    make_demos(_config(config, overrides), out)


def make_demos(settings: Any, out: Path) -> Path:
    """Collect into ``out`` unless the same settings already did."""
    from repro_rl.cli.api import annotation_notes
    from repro_rl.demos import ANNOTATORS, BatchAnnotator, collect_demos, save_demos
    from repro_rl.demos.collect import summary
    from repro_rl.demos.store import EXPERT_FILE
    from repro_rl.files import write_json
    from repro_rl.train.build import build_pool

    env = build_pool(settings).first
    section = settings.demos
    panel = env.panel(section.split)
    key = {
        "env": settings.env.model_dump(mode="json"),
        "demos": section.model_dump(mode="json"),
        "seed": settings.seed,
    }
    annotator = ANNOTATORS.get(section.annotator)
    rounds = 1  # of the bar: playing, and labelling where that takes time
    if isinstance(annotator, BatchAnnotator):
        rounds, key["annotator"] = 2, annotator.settings(settings)
    notes: dict[str, Any] = {}
    done = out / "demos.json"
    if done.exists() and (out / EXPERT_FILE).exists():
        import json

        if json.loads(done.read_text())["settings"] != key:
            raise ConfigError(f"{out} holds demonstrations made with other settings; use another folder.")
        say(f"Demonstrations are in {out}.")
        return out
    total = section.expert + section.winning + section.failing
    with bar("demonstrations", rounds * total) as progress:
        experts, labelled = collect_demos(
            env,
            panel.ids,
            expert=section.expert,
            winning=section.winning,
            failing=section.failing,
            noise=section.noise,
            annotator=section.annotator,
            seed=settings.seed,
            config=settings,
            on_done=progress.add,
            on_label=progress.add,
            notes=notes,
        )
    save_demos(out, experts, labelled)
    write_json(
        done,
        {
            "settings": key,
            "panel": panel.label(),
            "expert": summary(experts),
            "labelled": summary(labelled),
            "annotation": notes or None,
        },
    )
    for line in annotation_notes(notes, done):
        say(line)
    say(
        f"{len(experts)} expert episodes and {len(labelled)} labelled ones "
        f"(annotator: {section.annotator}) in {out}"
    )
    return out


@app.command()
def warmup(
    overrides: Overrides = None,
    config: Config = None,
    demos_folder: Annotated[Path, typer.Option("--demos", help="folder made by 'repro-rl demos'")] = Path(
        "runs/demos"
    ),
    out: Out = Path("runs/warmup"),
) -> None:
    """Stage 1: teach the formats by joint supervised training on forward and reflection samples."""
    run_warmup_stage(_config(config, overrides), demos_folder, out)


def run_warmup_stage(settings: Any, demos_folder: Path, out: Path) -> Path:
    from repro_rl.train.warmup import run_warmup

    note = {
        "warmup/forward_loss": "forward loss",
        "warmup/reflect_loss": "reflection loss",
        "eval/success": "success",
    }
    latest: dict[str, Any] = {}
    with bar("warmup", settings.warmup.updates) as progress:

        def show(row: dict[str, Any]) -> None:
            latest.update(row)
            progress.at(row["iteration"], numbers(latest, note))

        model = run_warmup(settings, demos_folder, out, show)
        if latest:
            progress.total(latest["iteration"])
    say(f"Warm start in {model}")
    return model


@app.command()
def train(
    overrides: Overrides = None,
    config: Config = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="repro, grpo, gigpo, meta, l1, l2, ...")
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", help="model folder to start from, e.g. runs/warmup/model")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="run folder  [default: runs/<method>]")
    ] = None,
) -> None:
    """Stage 2: reinforcement learning with RePro-PO or any baseline, control or ablation."""
    more = [f"method.name={method}"] if method else []
    more += [f"train.init={init}"] if init else []
    settings = _config(config, overrides, *more)
    run_train_stage(settings, out or Path("runs") / settings.method.name)


def run_train_stage(settings: Any, out: Path) -> Path:
    from repro_rl.train.loop import run_training

    latest: dict[str, Any] = {}
    with bar(f"train {settings.method.name}", settings.train.iterations) as progress:

        def show(row: dict[str, Any]) -> None:
            latest.update(row)
            progress.at(row["iteration"], numbers(latest, TRAIN_NOTE))

        run = run_training(settings, out, show, progress.say)
    if run.best:
        say(f"Best validation success {run.best[0]:.3f} at iteration {run.best[1]}; run folder {out}")
    return out


@app.command("eval")
def eval_command(
    path: Annotated[
        Path,
        typer.Argument(help="a run folder, a Hugging Face model folder, or api:MODEL (see api.base_url)"),
    ],
    overrides: Overrides = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="settings  [default: those of the run]")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, last, warm-start or an iteration")] = "last",
    name: Annotated[
        str | None, typer.Option(help="name of the result file  [default: the checkpoint's]")
    ] = None,
    judge: Annotated[bool, typer.Option(help="also reflect, and measure progress quality")] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder for results  [default: the run]")
    ] = None,
) -> None:
    """Evaluate a checkpoint on a fixed, hashed panel, with intervals."""
    import json

    from repro_rl.cli.api import api_model, api_run, usage_note

    source = config or (str(path / "config.yaml") if (path / "config.yaml").exists() else None)
    model = api_model(path)
    settings = _config(source, overrides, *([f"api.model={json.dumps(model)}"] if model else []))
    if model:
        out, name = out or api_run(model), name or api_run(model).name
    result = run_eval_stage(settings, path, checkpoint, name or checkpoint, out or path, judge)
    console.print(eval_table([result]))
    if result["api"]:
        say(usage_note(result))


def run_eval_stage(
    settings: Any, path: Path, checkpoint: str, name: str, out: Path, judge: bool = True
) -> dict[str, Any]:
    from repro_rl.study.evaluate import evaluate
    from repro_rl.train.build import find_agent

    model = find_agent(path, checkpoint)
    iteration = int(model.name) if model.name.isdigit() else 0 if checkpoint == "warm-start" else None
    with bar(f"eval {name}") as progress:
        return evaluate(
            settings,
            model,
            name=name,
            iteration=iteration,
            out=out,
            judge=judge,
            on_total=progress.total,
            on_done=progress.add,
        )


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


@app.command()
def doctor(
    envs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ENV]... [KEY=VALUE]...", help="environments to check  [default: all]; settings of one"
        ),
    ] = None,
) -> None:
    """Check this machine and every environment: an expert plan must win in each."""
    from repro_rl.cli.doctor import run_doctor
    from repro_rl.cli.play import env_settings

    names = [word for word in envs or [] if "=" not in word]
    settings = env_settings([word for word in envs or [] if "=" in word])
    if settings and len(names) != 1:
        raise ConfigError("Settings belong to one environment; name exactly one, such as webshop.")
    raise typer.Exit(0 if run_doctor(names, settings=settings) else 1)


@app.command()
def play(
    env: Annotated[str, typer.Argument(help="environment name, e.g. sokoban")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="environment settings")
    ] = None,
    split: Annotated[str, typer.Option(help="panel to take the task from")] = "test",
    task: Annotated[str, typer.Option(help="task id or position in the panel")] = "0",
    expert: Annotated[bool, typer.Option("--expert", help="watch the expert")] = False,
    agent: Annotated[Path | None, typer.Option(help="watch a trained agent: a run folder")] = None,
    checkpoint: Annotated[
        str, typer.Option(help="with --agent: best, last, warm-start or an iteration")
    ] = "last",
) -> None:
    """Play a task yourself, or watch the expert or a trained agent, with progress at every step."""
    from repro_rl.cli.play import run_play

    run_play(env, overrides or [], split, task, expert, agent, checkpoint)


@app.command()
def demo(
    overrides: Overrides = None,
    config: Config = None,
    method: Annotated[str, typer.Option("--method", "-m", help="what to train with")] = "repro",
    out: Out = Path("runs/demo"),
) -> None:
    """The whole method on one environment: demonstrations, warmup, RePro-PO, evaluation, report."""
    from repro_rl.cli.doctor import run_doctor
    from repro_rl.report import build_report

    base = _config(config, overrides, f"method.name={method}")
    if not run_doctor([base.env.name], short=True, settings=base.env.settings):
        raise ReproError(
            f"Environment {base.env.name!r} fails its check; run 'repro-rl doctor {base.env.name}'."
        )
    folder = make_demos(base, out / "demos")
    model = run_warmup_stage(base, folder, out / "warmup")
    settings = _config(config, overrides, f"method.name={method}", f"train.init={model}")
    run = out / "train"
    run_train_stage(settings, run)
    results = [
        run_eval_stage(settings, run, checkpoint, checkpoint, run)
        for checkpoint in ("warm-start", "best", "last")
    ]
    console.print(eval_table(results))
    page = build_report([run])
    before, after = results[0], results[-1]
    ratio = after["success"] / before["success"] if before["success"] else float("inf")
    say(
        f"Held-out success {before['success']:.3f} → {after['success']:.3f} ({ratio:.1f} times) "
        f"on {after['panel']}, seed {settings.seed}, method {settings.method.name}.",
    )
    say(f"Open the report: {page}")
