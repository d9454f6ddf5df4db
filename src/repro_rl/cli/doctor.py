"""``repro-rl doctor``: does every environment play, does this machine compute, is a model exact."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from repro_rl.cli.app import app
from repro_rl.cli.options import env_settings, read_config
from repro_rl.cli.show import console, say, visible
from repro_rl.errors import ConfigError, ReproError

if TYPE_CHECKING:
    from repro_rl.envs import TextEnv
    from repro_rl.envs.checker import Check

OPTIONAL = {
    "torch": "training, and models that run here: pip install 'repro-rl[train]'",
    "matplotlib": "figures in reports: pip install 'repro-rl[plots]'",
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
            metavar="[ENV]... [KEY=VALUE]...",
            help="environments to check  [default: all]; settings of one, or of the run with --model",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="check this model: a folder or a hub name")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--config", "-c", help="with --model: settings of the run, a YAML file or a recipe"),
    ] = None,
) -> None:
    """Check this machine and every environment, where an expert plan must win; or check a model.

    With --model: what a run would use of it, and whether sampling, update and checkpoints are exact.
    """
    if model is not None:
        raise typer.Exit(0 if model_conforms(model, source, envs or []) else 1)
    if source is not None:
        raise ConfigError("--config belongs to --model: settings decide how a model is loaded.")
    names = [word for word in envs or [] if "=" not in word]
    words = [word for word in envs or [] if "=" in word]
    if words and len(names) != 1:
        raise ConfigError("Settings belong to one environment; name exactly one, such as webshop.")
    settings = env_settings(names[0] if names else None, words)
    print_machine()
    raise typer.Exit(0 if environments_work(names, settings) else 1)


def model_conforms(model: str, source: str | None, overrides: Sequence[str]) -> bool:
    """Check a model with the settings of a run, and print what will be used and what each check says."""
    from repro_rl.run.model_paths import start_model
    from repro_rl.study.conformance import check_model

    names = [word for word in overrides if "=" not in word]
    if names:
        raise ConfigError(f"With --model only SECTION.KEY=VALUE may follow; got {', '.join(names)}.")
    config = read_config(source, list(overrides), ("policy.model", model))
    found = check_model(start_model(config.policy.model), config, prompts=source is not None)
    for name, value in found.facts.items():
        say(f"{name}: {visible(value)}")
    for check in found.checks:
        _print_check(check)
    failed = [check.name for check in found.checks if not check.ok]
    if failed:
        say(f"{model} should not be used like this ({', '.join(failed)} failed); see docs/models.md.")
    return found.ok


def print_machine() -> None:
    """Versions of what computes, and which optional packages are missing."""
    from repro_rl.run.folder import accelerators, versions

    found = accelerators()
    about = f"python {platform.python_version()}"
    if found:
        gpu = found["gpu"] or "none (CPU is enough for tiny models)"
        about += f"   GPU: {gpu}   torch threads: {found['threads']}"
    console.print(about, highlight=False)
    packages = [f"{name} {version}" for name, version in versions().items() if version and name != "python"]
    console.print("   ".join(packages), highlight=False)
    for name, use in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            console.print(f"optional {name} is not installed ({use})", style="dim")
        elif name == "vllm":
            from repro_rl.policy.vllm.installed import importable

            console.print(f"optional {importable()} ({use})")


def environments_work(names: Sequence[str], settings: Mapping[str, Any], *, short: bool = False) -> bool:
    """Check environments by name, all of them without names, and print what each check says.

    ``settings``: of the environment (one only). ``short``: one line for an environment that passes.
    """
    from repro_rl.envs.base import ENVS, make
    from repro_rl.envs.checker import check_env

    good = True
    for name in names or ENVS.names():
        try:
            factory = partial(make, name, **settings)
            env = factory()
            checks = check_env(env, factory=factory)
        except ReproError as error:
            console.print(_mark(False), f"{name}: {error}")
            good = False
            continue
        passed = all(check.ok for check in checks)
        good = good and passed
        if short and passed:
            console.print(_mark(True), f"{name}: {len(checks)} checks, an expert plan wins")
        else:
            _print_checks(name, env, checks)
    return good


def _print_checks(name: str, env: TextEnv, checks: Sequence[Check]) -> None:
    about = f"  {env.describe()}" if env.describe() else ""
    console.print(Text(name, "bold") + about)
    for check in checks:
        _print_check(check)


def _print_check(check: Check) -> None:
    console.print(" ", _mark(check.ok), f"{check.name}: {check.detail}")


def _mark(good: bool) -> Text:
    return Text("✓", "green") if good else Text("✗", "red")
