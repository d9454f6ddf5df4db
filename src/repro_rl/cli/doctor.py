"""``repro-rl doctor``: does every environment play, does this machine compute, is a model exact."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.options import env_settings, read_config, take_plugins
from repro_rl.cli.show import console, new_table, say, show_table
from repro_rl.cli.terminal import careful
from repro_rl.errors import ConfigError, ReproError, install_command

if TYPE_CHECKING:
    from rich.table import Table

    from repro_rl.envs.checks import Check

OPTIONAL = {
    "torch": f"training, and models that run here: {install_command('train')}",
    "matplotlib": f"figures in reports: {install_command('plots')}",
    "vllm": "sampling in training, policy.backend=vllm",
    "textworld": "the original ALFWorld engine",
    "verl": "clusters",
    "peft": "low-rank adapters, policy.lora",
    "gguf": "models in GGUF files",
    "bitsandbytes": "8-bit optimizer, train.optimizer=adamw8bit",
    **{name: f"train.trackers=[{name}]" for name in ("tensorboard", "wandb", "mlflow", "trackio")},
    "en_core_web_lg": "the original's tagger of WebShop titles",
}


@app.command()
def doctor(
    envs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ENV|KEY=VALUE",
            help="environments to check  \\[default: all]; settings of one, or of the run with --model; "
            "plugins=[MODULE]",
            autocompletion=complete.environments,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="check this model: a folder, a GGUF file or a hub name"),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="with --model: settings of the run, a YAML file or a recipe",
            autocompletion=complete.recipes,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="tasks to check on  \\[default: test, else the first that has tasks]")
    ] = None,
) -> None:
    """Check this machine and every environment, where an expert plan must win; or check a model.

    With --model: what a run would use of it, and whether sampling, update and checkpoints are exact.
    """
    if model is not None:
        raise typer.Exit(0 if model_conforms(model, source, envs or []) else 1)
    if source is not None:
        raise ConfigError("--config belongs to --model: settings decide how a model is loaded.")
    given = take_plugins(envs or [])
    names = [word for word in given if "=" not in word]
    words = [word for word in given if "=" in word]
    if words and len(names) != 1:
        raise ConfigError("Settings belong to one environment; name exactly one, such as webshop.")
    settings = env_settings(names[0] if names else None, words)
    print_machine()
    raise typer.Exit(0 if environments_work(names, settings, split) else 1)


def model_conforms(model: str, source: str | None, overrides: Sequence[str]) -> bool:
    """Check a model with the settings of a run, and print what will be used and what each check says."""
    from repro_rl.run.model_paths import start_model
    from repro_rl.study.conformance import check_model

    names = [word for word in overrides if "=" not in word]
    if names:
        raise ConfigError(f"With --model only SECTION.KEY=VALUE may follow; got {', '.join(names)}.")
    config = read_config(source, list(overrides), ("policy.model", model))
    found = check_model(start_model(config.policy.model, "--model "), config, prompts=source is not None)
    show_table(new_table(f"what a run uses of {model}", ("", ""), list(found.facts.items()), left=2))
    show_table(_check_table("checks", found.checks))
    failed = [check.name for check in found.checks if not check.ok]
    if failed:
        say(f"{model} should not be used like this ({', '.join(failed)} failed); see docs/refused-models.md.")
    return found.ok


def print_machine() -> None:
    """Versions of what computes, and which optional packages are missing."""
    from repro_rl.run.folder import accelerators, versions

    rows: list[list[str | Text]] = [[name, version, ""] for name, version in versions().items() if version]
    found = accelerators()
    if found:
        gpu = found["gpu"] or "none (CPU is enough for tiny models)"
        rows += [["GPU", gpu, ""], ["torch threads", str(found["threads"]), ""]]
    for name, use in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            rows.append([Text(name, "dim"), Text("not installed", "dim"), use])
        elif name == "vllm":
            from repro_rl.policy.vllm.installed import importable

            rows.append([name, importable(), use])
    show_table(new_table("this machine", ("package", "version", "needed for"), rows, left=3))


def environments_work(
    names: Sequence[str], settings: Mapping[str, Any], split: str | None = None, *, short: bool = False
) -> bool:
    """Check environments by name, all of them without names, and print what each check says.

    ``settings``: of the environment (one only). ``split``: whose tasks are played; None: see ``first_split``.
    ``short``: one line for an environment that passes.
    """
    from repro_rl.envs.base import ENVS, description_of, make
    from repro_rl.envs.checker import check_env, first_split

    good = True
    for name in names or ENVS.names():
        try:
            factory = partial(make, name, **settings)
            env = factory()
            checks = check_env(env, split or first_split(env), factory=factory)
            about = description_of(env)
        except ReproError as error:
            console.print(_mark(False), f"{name}: {error}")
            good = False
            continue
        passed = all(check.ok for check in checks)
        good = good and passed
        if short and passed:
            console.print(_mark(True), f"{name}: {len(checks)} checks, an expert plan wins")
            for check in checks:
                if check.doubt:
                    say(careful(f"{name}, {check.name}: {check.detail}"))
        else:
            show_table(_check_table(f"{name}: {about}" if about else name, checks))
    return good


def _check_table(title: str, checks: Sequence[Check]) -> Table:
    rows: list[list[str | Text]] = [
        [_mark(check.ok, check.doubt), check.name, check.detail] for check in checks
    ]
    return new_table(title, ("", "check", "result"), rows, left=3)


def _mark(good: bool, doubt: bool = False) -> Text:
    if doubt:
        return Text("!", "yellow")
    return Text("✓", "green") if good else Text("✗", "red")
