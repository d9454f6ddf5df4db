"""``repro-rl pilot``: what a progress estimate in the prompt does to success, by prompting alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli.api import api_model
from repro_rl.cli.app import app
from repro_rl.cli.commands import Overrides, make_demos, run_warmup_stage
from repro_rl.cli.compare import parse_seeds
from repro_rl.cli.show import bar, console, say, table_without, visible
from repro_rl.policy.http.spending import usage_line

if TYPE_CHECKING:
    from repro_rl.study.pilot import Condition

# Columns that make a table too wide to read in a terminal.
WIDE = {
    "broke off",
    "what the prompt asks and shows",
    "each seed",
    "95 % t",
    "seeds",
}
ONLY_EXPERTS = ["demos.winning=0", "demos.failing=0"]  # nothing is trained: only what is shown is needed


@app.command()
def pilot(
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="recipe or file  [default: the model's run, else sokoban-tiny]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="run folder, Hugging Face folder or hub name, or api:MODEL  [default: policy.model; a tiny "
            "one is warmed up first, once a seed]"
        ),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="of a run folder: best, last, warm-start or an iteration")
    ] = "last",
    demos_folder: Annotated[
        Path | None, typer.Option("--demos", help="demonstrations made before, instead of new ones")
    ] = None,
    seeds: Annotated[str, typer.Option(help="e.g. 0,1,2 or 0-4")] = "0",
    conditions: Annotated[
        str | None,
        typer.Option(help="some of base, meta, plain, random, retrospective, with commas  [default: all]"),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="folder to write to (continued if it exists)")
    ] = Path("runs/pilot"),
) -> None:
    """The paper's pilot study: base, meta, and demonstrations with no, random or retrospective progress."""
    from repro_rl.report.pilot import heading, headline, tables, write_pilot
    from repro_rl.study.pilot import find_conditions, seed_config
    from repro_rl.study.pilot_results import pilot_data

    wanted = find_conditions(part.strip() for part in conditions.split(",")) if conditions else None
    chosen = wanted or find_conditions([])
    base, trains = _settings(overrides or [], config, model, chosen)
    numbers = list(dict.fromkeys(parse_seeds(seeds)))
    left_out: dict[str, str] = {}
    remarks: dict[str, None] = {}
    name = f"warm starts of {config or 'sokoban-tiny'}"
    for seed in numbers:
        name, absent, said = _one_seed(name, base, trains, chosen, seed, model, checkpoint, demos_folder, out)
        left_out |= absent
        remarks |= dict.fromkeys(said)
    data = pilot_data(
        out,
        seed_config(base, numbers[0]),
        chosen,
        numbers,
        agent=name,
        left_out=left_out,
        remarks=list(remarks),
    )
    paths = write_pilot(data, out)
    say(visible(f"\n{heading(data)}"))
    for table in [t for t in tables(data) if t.bars]:
        console.print(table_without(table, WIDE))
    for line in [*headline(data), *(f"Note: {note}" for note in data["notes"])]:
        say(visible(line))
    say("Written: " + ", ".join(map(str, paths)))


def _settings(
    overrides: Sequence[str], config: str | None, model: str | None, chosen: Sequence[Condition]
) -> tuple[Any, bool]:
    """Settings, and whether tiny warm starts are trained first. What the user says wins over our defaults."""
    from repro_rl.config import load_config
    from repro_rl.study.pilot import warm_start_settings
    from repro_rl.train.build import set_threads

    source = config
    if model and not config and (Path(model) / "config.yaml").exists():
        source = str(Path(model) / "config.yaml")
    first = load_config(source, list(overrides))
    trains = model is None and first.policy.model == "tiny"
    more = warm_start_settings(load_config(source), chosen) if trains else ONLY_EXPERTS
    name = api_model(Path(model)) if model else None
    more = [*more, f"api.model={json.dumps(name)}"] if name else more
    settings = load_config(source, [*more, *overrides])
    set_threads(settings)
    return settings, trains


def _one_seed(
    name: str,
    base: Any,
    trains: bool,
    chosen: Sequence[Condition],
    seed: int,
    model: str | None,
    checkpoint: str,
    demos_folder: Path | None,
    out: Path,
) -> tuple[str, dict[str, str], list[str]]:
    """Make what is missing and play every condition; the model's name, what was left out, and remarks."""
    from repro_rl.demos import load_demos
    from repro_rl.policy.http import HttpPolicy
    from repro_rl.study.pilot import (
        check_demos,
        fingerprint,
        finished,
        open_pilot,
        play_condition,
        seed_config,
        split_taught,
        taught_modes,
    )
    from repro_rl.study.pilot_results import folder
    from repro_rl.train.build import agent_policy, find_agent
    from repro_rl.train.checkpoint import is_hub_name

    settings = seed_config(base, seed)
    place = folder(out, seed)
    asked = model or base.policy.model
    agent = None
    if not trains:
        agent = Path(asked) if is_hub_name(asked) else find_agent(asked, checkpoint)
        name = asked if agent == Path(asked) and not agent.exists() else f"{Path(asked).name} ({agent.name})"
    open_pilot(settings, place, name, fingerprint(agent) if agent else "")
    if demos_folder is not None:
        check_demos(demos_folder, base)
        demos = demos_folder
    elif trains:
        demos = make_demos(settings, place / "demos")
    else:  # one set for all seeds: annotating may cost money
        demos = make_demos(base, out / "demos")
    if agent is None:
        agent = run_warmup_stage(settings, demos, place / "warmup")
    played, left_out, remarks = split_taught(settings, chosen, taught_modes(agent))
    api = api_model(agent) is not None
    waiting = [item for item in played if finished(place, item, api) is None]
    for item in played:
        if item not in waiting:
            say(f"seed {seed}, {item.name}: played before")
    if not waiting:
        return name, left_out, remarks
    experts, _ = load_demos(demos)
    policy = agent_policy(settings, agent)
    try:
        for item in waiting:
            with bar(f"seed {seed} {item.name}") as progress:
                play_condition(
                    settings,
                    agent,
                    policy,
                    item,
                    experts,
                    place,
                    on_total=progress.total,
                    on_done=progress.add,
                )
    finally:
        if isinstance(policy, HttpPolicy):
            say(f"{usage_line(policy.client.spending.summary())}.")
            policy.client.close()
    return name, left_out, remarks
