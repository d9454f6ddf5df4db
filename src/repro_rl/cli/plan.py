"""``repro-rl plan``: what a run will read, need and take."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.data_gguf import convert_checked
from repro_rl.cli.options import Init, Method, Source, chosen, read_config, split_words
from repro_rl.cli.show import say, show_table
from repro_rl.errors import ConfigError, counted

if TYPE_CHECKING:
    from repro_rl.config import PromptSection
    from repro_rl.plan.devices import Device
    from repro_rl.plan.estimate import Estimate, RunOutline
    from repro_rl.plan.tokens import TokenTable


@app.command()
def plan(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG|SECTION.KEY=VALUE",
            help="a recipe or YAML file; settings",
            autocompletion=complete.plans,
        ),
    ] = None,
    source: Source = None,
    method: Method = None,
    init: Init = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="h100, h200, a100-80, l40s or cpu (this machine); may be repeated"),
    ] = None,
    probe: Annotated[
        bool | None,
        typer.Option("--probe/--no-probe", help="measure on this machine  \\[default: for local models]"),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="folder of the model's tokenizer  \\[default: the model's]")
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, help="tasks played three times each to count tokens")] = 12,
    completion: Annotated[
        float | None, typer.Option(min=1, help="mean tokens of an answer, where they are known")
    ] = None,
    reflect_completion: Annotated[
        float | None, typer.Option(min=1, help="mean tokens of a reflection, where they are known")
    ] = None,
) -> None:
    """What a training run will cost: parameters, tokens, memory and hours. Needs repro-rl[train]."""
    from repro_rl.plan.model_shape import model_shape
    from repro_rl.plan.planner import PlanOptions, make_plan
    from repro_rl.plan.workload import KnownLengths
    from repro_rl.run.panels import training_uses

    sources, settings = split_words(words or [])
    sources += [source] if source else []
    if len(sources) > 1:
        raise ConfigError(f"One config at a time; got {', '.join(sources)}.")
    config = read_config(sources[0] if sources else None, settings, *chosen(method, init))
    local = config.policy.model == "tiny" or Path(config.train.init or config.policy.model).exists()
    if not local:  # a path that is not there, or an unknown name, is said before anything else
        model_shape(config.policy, config.train.init)
    if probe is None:
        probe = "cpu" in (gpu or []) or (local and not gpu)
    if probe and not local:
        raise ConfigError(
            f"{config.policy.model} is not on this machine, so it cannot be measured; give a folder as "
            "policy.model (random weights do: 'repro-rl data qwen-untrained'), or plan with --gpu."
        )
    if probe:
        convert_checked(config, config.train.init or config.policy.model, training_uses(config.train))
    options = PlanOptions(
        probe=probe,
        tokenizer=tokenizer,
        tasks=tasks,
        lengths=KnownLengths(completion, reflect_completion),
    )
    if not (local or gpu):
        say(
            f"{config.policy.model} is not on this machine, so planned for GPUs; with policy.model=FOLDER, "
            "or a GGUF file, this machine is measured."
        )
    result = make_plan(config, _devices(gpu or [], local), options, say)
    for line in summary_lines(result.run, result.table, config.prompt, config.env.name):
        say(line)
    for estimate in result.estimates:
        show_table(estimate_table(estimate))
    for note in result.notes:
        say(f"- {note}")


def summary_lines(run: RunOutline, table: TokenTable, prompt: PromptSection, env: str) -> list[str]:
    """Model and tokens in a few lines; ``env``: the environment's name."""
    shape, work, training = run.shape, run.work, run.training
    trained = training.trained_parameters(shape)
    model = f"{shape.name}: {shape.parameters:,} parameters, "
    if training.adapter:
        model += f"frozen; adapter of rank {training.adapter_rank}: {trained:,}"
    else:
        model += f"{trained:,} of them trained"
    return [
        model,
        f"{env}: {counted(work.episodes, 'episode')} of {work.steps:.1f} steps an iteration",
        _prompt_line("step prompt", "tokens (median / 95 % / max)", table.action, prompt.max_prompt_tokens),
        _prompt_line("reflection prompt", "tokens", table.reflect, prompt.max_reflect_tokens),
        f"an iteration: {work.prompt_tokens:,.0f} prompt tokens, {work.completion_tokens:,.0f} generated "
        f"({work.action_rows * work.completion:,.0f} acting, "
        f"{work.episodes * work.reflect_completion:,.0f} reflection), "
        f"{work.trained_cells:,.0f} in a pass over the samples",
    ]


def _prompt_line(name: str, unit: str, counts: Sequence[int], limit: int) -> str:
    from repro_rl.plan.tokens import quantiles, share_over

    median, high, longest = quantiles(counts)
    return f"{name} {median} / {high} / {longest} {unit}, {share_over(counts, limit):.1%} over {limit}"


def estimate_table(estimate: Estimate) -> Table:
    """Memory by part beside seconds by part."""
    memory = "" if estimate.memory is None else f" of {_size(estimate.memory)}"
    verdict = "" if estimate.fits else "  DOES NOT FIT"
    table = Table(title=f"{estimate.device}: {_size(estimate.peak)}{memory}{verdict}", title_justify="left")
    table.add_column("memory")
    table.add_column("", justify="right")
    table.add_column("time of an iteration")
    table.add_column("", justify="right")
    sizes = [(name, _size(size)) for name, size in estimate.parts.items() if size]
    sizes.append(("peak", _size(estimate.peak)))
    for size, time in zip_longest(sizes, _times(estimate), fillvalue=("", "")):
        table.add_row(*size, *time)
    return table


def _times(estimate: Estimate) -> list[tuple[str, str]]:
    times = []
    if estimate.seconds is not None:
        times = [
            ("prefill", _time(estimate.seconds.prefill)),
            ("decoding", _time(estimate.seconds.decode)),
            ("update", _time(estimate.seconds.update)),
            ("reference", _time(estimate.seconds.reference)),
        ]
    hours = estimate.hours
    return [
        *times,
        ("iteration", _time(estimate.iteration)),
        ("a validation", _time(estimate.validation)),
        ("the run", f"{hours:.2f} h" if hours < 10 else f"{hours:.0f} h"),
    ]


def _devices(names: Sequence[str], local: bool) -> list[Device]:
    """The named devices; without names all of them, or none for a ``local`` model, which is measured."""
    from repro_rl.plan.devices import DEVICES, find_device

    if not names and not local:
        return list(DEVICES.values())
    return [find_device(name) for name in names if name != "cpu"]


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
