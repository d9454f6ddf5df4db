"""The doctor: does every environment play, does this machine compute, what is optional and absent."""

from __future__ import annotations

import importlib.util
import platform
from functools import partial
from typing import Any

from rich.markup import escape

from repro_rl.cli.show import console, visible
from repro_rl.envs.base import ENVS, make
from repro_rl.envs.checker import check_env
from repro_rl.errors import ReproError

OPTIONAL = {
    "vllm": "sampling in training, policy.backend=vllm",
    "textworld": "the original ALFWorld engine",
    "verl": "clusters",
    "peft": "low-rank adapters, policy.lora",
    "bitsandbytes": "8-bit optimizer, train.optimizer=adamw8bit",
    "en_core_web_lg": "the original's tagger of WebShop titles",
}


def run_doctor(envs: list[str] | None, short: bool = False, settings: dict[str, Any] | None = None) -> bool:
    """Print checks; True when everything needed works. ``settings``: of the environment (one only)."""
    import repro_rl.envs  # noqa: F401
    from repro_rl.train.run_folder import PACKAGES, _version

    good = True
    if not short:
        import torch

        gpu = (
            torch.cuda.get_device_name(0)
            if torch.cuda.is_available()
            else "none (CPU is enough for tiny models)"
        )
        console.print(
            f"python {platform.python_version()}   GPU: {gpu}   torch threads: {torch.get_num_threads()}"
        )
        console.print("   ".join(f"{name} {_version(name)}" for name in PACKAGES), highlight=False)
        for name, use in OPTIONAL.items():
            if importlib.util.find_spec(name) is None:
                console.print(f"[dim]optional {name} is not installed ({use})[/]", highlight=False)
            elif name == "vllm":
                from repro_rl.policy.vllm.installed import importable

                console.print(f"optional {escape(importable())} ({use})", highlight=False)
    for name in envs or ENVS.names():
        try:
            factory = partial(make, name, **(settings or {}))
            env = factory()
            checks = check_env(env, factory=factory)
        except ReproError as error:
            console.print(f"[red]✗[/] {name}: {error}", highlight=False)
            good = False
            continue
        failed = [check for check in checks if not check.ok]
        good = good and not failed
        if short and not failed:
            console.print(f"[green]✓[/] {name}: {len(checks)} checks, an expert plan wins", highlight=False)
            continue
        about = f"  {env.describe()}" if env.describe() else ""
        console.print(f"[bold]{name}[/]{escape(about)}", highlight=False)
        for check in checks:
            mark = "[green]✓[/]" if check.ok else "[red]✗[/]"
            console.print(f"  {mark} {check.name}: {escape(visible(check.detail))}", highlight=False)
    return good
