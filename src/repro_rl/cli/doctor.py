"""``repro-rl doctor``: does every environment play, does this machine compute, which options are absent."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from repro_rl.cli.app import app
from repro_rl.cli.options import env_settings
from repro_rl.cli.show import console, visible
from repro_rl.errors import ConfigError, ReproError

if TYPE_CHECKING:
    from repro_rl.envs import TextEnv
    from repro_rl.envs.checker import Check

OPTIONAL = {
    "vllm": "sampling in training, policy.backend=vllm",
    "textworld": "the original ALFWorld engine",
    "verl": "clusters",
    "peft": "low-rank adapters, policy.lora",
    "gguf": "models in GGUF files",
    "bitsandbytes": "8-bit optimizer, train.optimizer=adamw8bit",
    "en_core_web_lg": "the original's tagger of WebShop titles",
}


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
    names = [word for word in envs or [] if "=" not in word]
    settings = env_settings([word for word in envs or [] if "=" in word])
    if settings and len(names) != 1:
        raise ConfigError("Settings belong to one environment; name exactly one, such as webshop.")
    print_machine()
    raise typer.Exit(0 if environments_work(names, settings) else 1)


def print_machine() -> None:
    """Versions of what computes, and which optional packages are missing."""
    import torch

    from repro_rl.run.folder import versions

    gpu = (
        torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (CPU is enough for tiny models)"
    )
    console.print(
        f"python {platform.python_version()}   GPU: {gpu}   torch threads: {torch.get_num_threads()}"
    )
    packages = [f"{name} {found}" for name, found in versions().items() if name != "python"]
    console.print("   ".join(packages), highlight=False)
    for name, use in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            console.print(f"[dim]optional {name} is not installed ({use})[/]", highlight=False)
        elif name == "vllm":
            from repro_rl.policy.vllm.installed import importable

            console.print(f"optional {escape(importable())} ({use})", highlight=False)


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
            console.print(f"[red]✗[/] {name}: {error}", highlight=False)
            good = False
            continue
        passed = all(check.ok for check in checks)
        good = good and passed
        if short and passed:
            console.print(f"[green]✓[/] {name}: {len(checks)} checks, an expert plan wins", highlight=False)
        else:
            _print_checks(name, env, checks)
    return good


def _print_checks(name: str, env: TextEnv, checks: Sequence[Check]) -> None:
    about = f"  {env.describe()}" if env.describe() else ""
    console.print(f"[bold]{name}[/]{escape(about)}", highlight=False)
    for check in checks:
        mark = "[green]✓[/]" if check.ok else "[red]✗[/]"
        console.print(f"  {mark} {check.name}: {escape(visible(check.detail))}", highlight=False)
