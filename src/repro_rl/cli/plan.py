"""``repro-rl plan``: what a run will read, need and take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from repro_rl.cli.app import app
from repro_rl.cli.show import console, say
from repro_rl.errors import ConfigError


@app.command()
def plan(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [SECTION.KEY=VALUE]...", help="a recipe or YAML file; settings"),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="h100, h200, a100-80, l40s or cpu (this machine); may be repeated"),
    ] = None,
    probe: Annotated[
        bool | None,
        typer.Option("--probe/--no-probe", help="measure on this machine  [default: for local models]"),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="folder of the model's tokenizer  [default: the model's]")
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, help="tasks played three times each to count tokens")] = 12,
    completion: Annotated[
        float | None, typer.Option(min=1, help="mean tokens of an answer, where they are known")
    ] = None,
    reflect_completion: Annotated[
        float | None, typer.Option(min=1, help="mean tokens of a reflection, where they are known")
    ] = None,
) -> None:
    """Before anyone pays: parameters, tokens, memory and hours of a training run."""
    from repro_rl.config import load_config
    from repro_rl.plan.devices import DEVICES, find_device
    from repro_rl.plan.plan import make_plan
    from repro_rl.train.build import set_threads

    names = [word for word in words or [] if "=" not in word]
    if len(names) > 1:
        raise ConfigError(f"One config at a time; got {', '.join(names)}.")
    config = load_config(names[0] if names else None, [word for word in words or [] if "=" in word])
    set_threads(config)
    chosen = gpu or []
    local = config.policy.model == "tiny" or Path(config.train.init or config.policy.model).exists()
    if probe is None:
        probe = "cpu" in chosen or (local and not chosen)
    if probe and not local:
        raise ConfigError(
            f"{config.policy.model} is not on this machine, so it cannot be measured; give a folder as "
            "policy.model (random weights do: 'repro-rl data qwen-untrained'), or plan with --gpu."
        )
    devices = [find_device(name) for name in chosen if name != "cpu"]
    if not chosen and not local:
        devices = list(DEVICES.values())
    result = make_plan(
        config,
        devices,
        probe=probe,
        tokenizer=tokenizer,
        tasks=tasks,
        completion=completion,
        reflect_completion=reflect_completion,
        say=say,
    )
    for line in summary_lines(config, result):
        say(line)
    for estimate in result.estimates:
        console.print(estimate_table(estimate))
    for note in result.notes:
        say(f"- {note}")


def summary_lines(config: Any, plan: Any) -> list[str]:
    """Model and tokens in a few lines."""
    from repro_rl.plan.tokens import share_over, spread

    net, work, table, prompt = plan.net, plan.work, plan.table, config.prompt
    forward, reflect = spread(table.forward), spread(table.reflect)
    rank = config.policy.lora.rank
    trained = net.adapter(rank, config.policy.lora.targets) if rank else net.parameters
    lines = [
        f"{net.name}: {net.parameters:,} parameters, {trained:,} of them trained"
        if not rank
        else f"{net.name}: {net.parameters:,} parameters, frozen; adapter of rank {rank}: {trained:,}",
        f"{config.env.name}: {work.episodes} episodes of {work.steps:.1f} steps an iteration",
        f"forward prompt {forward[0]} / {forward[1]} / {forward[2]} tokens (median / 95 % / max), "
        f"{share_over(table.forward, prompt.max_prompt_tokens):.1%} over {prompt.max_prompt_tokens}",
        f"reflection prompt {reflect[0]} / {reflect[1]} / {reflect[2]} tokens, "
        f"{share_over(table.reflect, prompt.max_reflect_tokens):.1%} over {prompt.max_reflect_tokens}",
        f"an iteration: {work.prompt_tokens:,.0f} prompt tokens, {work.completion_tokens:,.0f} generated "
        f"({work.forward_rows * work.completion:,.0f} forward, "
        f"{work.episodes * work.reflect_completion:,.0f} reflection), "
        f"{work.trained_cells:,.0f} in a pass over the samples",
    ]
    return lines


def estimate_table(estimate: Any) -> Table:
    room = "" if estimate.room is None else f" of {_size(estimate.room)}"
    verdict = "" if estimate.fits else "  DOES NOT FIT"
    table = Table(title=f"{estimate.device}: {_size(estimate.peak)}{room}{verdict}", title_justify="left")
    table.add_column("memory")
    table.add_column("", justify="right")
    table.add_column("time of an iteration")
    table.add_column("", justify="right")
    left = [(name, _size(size)) for name, size in estimate.parts.items() if size]
    left.append(("peak", _size(estimate.peak)))
    seconds = estimate.seconds
    right = (
        [
            ("reading prompts", _time(seconds.prefill)),
            ("generating", _time(seconds.decode)),
            ("update", _time(seconds.update)),
            ("reference", _time(seconds.reference)),
        ]
        if seconds is not None
        else []
    )
    right += [
        ("iteration", _time(estimate.iteration)),
        ("a validation", _time(estimate.validation)),
        ("the run", f"{estimate.hours:.2f} h" if estimate.hours < 10 else f"{estimate.hours:.0f} h"),
    ]
    for row in range(max(len(left), len(right))):
        table.add_row(
            *(left[row] if row < len(left) else ("", "")), *(right[row] if row < len(right) else ("", ""))
        )
    return table


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
