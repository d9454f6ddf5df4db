"""``repro-rl pilot``: what a progress estimate in the prompt does to success, by prompting alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli import complete
from repro_rl.cli.api import api_agent, api_model
from repro_rl.cli.app import app
from repro_rl.cli.options import Overrides, parse_seeds, read_config, read_run_config
from repro_rl.cli.show import bar, console, say, show_table, table_without, visible
from repro_rl.cli.stages import run_demos_stage, run_warmup_stage
from repro_rl.cli.terminal import careful

if TYPE_CHECKING:
    from repro_rl.config import Override, RunConfig
    from repro_rl.policy.http import HttpPolicy
    from repro_rl.study.pilot import Condition

# Columns that make a table too wide to read in a terminal.
WIDE = {"broke off", "what the prompt asks and shows", "each seed", "95 % t", "seeds"}
# Without a warmup, only prompts need demonstrations, and those show no mistakes.
ONLY_EXPERTS = ["demos.winning=0", "demos.failing=0", "demos.mistakes=[0.0]", "demos.wandering=0"]


@dataclass(slots=True, frozen=True)
class PilotRun:
    """What all seeds of one command share."""

    config: RunConfig  # with the seed of the settings; see ``study.pilot.seed_config``
    conditions: Sequence[Condition]  # to play, in the study's order
    agent: Path | None  # model folder, hub name or api:MODEL; None: each seed warms up its own tiny model
    agent_name: str  # for the pages
    policy: HttpPolicy | None  # a model behind an API, the same for all seeds: they share a budget
    demos: Path | None  # folder of demonstrations that the user gave
    out: Path


@app.command()
def pilot(
    overrides: Overrides = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="recipe or file  \\[default: the model's run, else sokoban-tiny]",
            autocompletion=complete.recipes,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="run folder, Hugging Face folder, GGUF file, hub name or api:MODEL  \\[default: "
            "policy.model; a tiny one is warmed up first, once a seed]"
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
        typer.Option(help="some of base, meta, plain, random, retrospective, with commas  \\[default: all]"),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="folder to write to (continued if it exists)")
    ] = Path("runs/pilot"),
) -> None:
    """The paper's pilot study: base, meta, and demonstrations with no, random or retrospective progress."""
    from repro_rl.files import LOCK_FILE, only_writer, sweep_temporaries
    from repro_rl.report.pilot import write_pilot
    from repro_rl.run.panels import Use, warmup_validates
    from repro_rl.run.preflight import check_installed, preflight
    from repro_rl.run.setup import build_pool
    from repro_rl.study.pilot import find_conditions, seed_config
    from repro_rl.study.pilot_results import PilotRuns, pilot_data

    names = [part.strip() for part in conditions.split(",")] if conditions else []
    chosen = find_conditions(names)
    base, warms_up = _read_config(overrides or [], source, model, chosen)
    numbers = list(dict.fromkeys(parse_seeds(seeds)))
    uses = {
        Use.EVAL,
        *(() if demos_folder else (Use.DEMOS,)),
        *(warmup_validates(base.warmup) if warms_up else ()),
    }
    with closing(build_pool(base.env)) as pool:
        found = preflight(base, pool.first, uses)
    if warms_up:
        check_installed(base)
    for line in found:
        say(careful(line))
    agent, name = None, f"warm starts of {source or 'sokoban-tiny'}"
    if not warms_up:
        agent, name = _find_agent(model or base.policy.model, checkpoint)
    left_out: dict[str, str] = {}
    remarks: dict[str, None] = {}
    # What a model behind an API lacks is said before anything is made.
    with api_agent(base, agent) as policy, only_writer(out / LOCK_FILE, "pilot study"):
        run = PilotRun(base, chosen, agent, name, policy, demos_folder, out)
        sweep_temporaries(out)
        _count_finished(run, numbers)
        for seed in numbers:
            absent, of_seed = _play_seed(run, seed)
            left_out |= absent
            remarks |= dict.fromkeys(of_seed)
    data = pilot_data(
        PilotRuns(out, chosen, numbers),
        seed_config(base, numbers[0]),
        agent=name,
        left_out=left_out,
        remarks=list(remarks),
    )
    _print_results(data, write_pilot(data, out))


def _print_results(data: dict[str, Any], written: Sequence[Path]) -> None:
    """The tables of a pilot study that fit a terminal, its sentences, and the pages' paths."""
    from repro_rl.report.pilot import heading, headline, tables

    say(visible(f"\n{heading(data)}"))
    for table in [t for t in tables(data) if t.bars]:
        show_table(table_without(table, WIDE if console.is_terminal else ()))
    for line in [*headline(data), *(f"Note: {note}" for note in data["notes"])]:
        say(visible(line))
    say("Written: " + ", ".join(map(str, written)))


def _read_config(
    overrides: Sequence[str], source: str | None, model: str | None, conditions: Sequence[Condition]
) -> tuple[RunConfig, bool]:
    """Settings, and whether each seed warms up a tiny model first. The user's settings win over ours."""
    from repro_rl.study.pilot import warm_start_settings

    defaults: list[Override] = []
    warms_up = model is None and read_config(source, overrides).policy.model == "tiny"
    defaults += warm_start_settings(read_config(source, []).warmup, conditions) if warms_up else ONLY_EXPERTS
    name = api_model(Path(model)) if model else None
    if name:
        defaults.append(("api.model", name))
    if model:
        return read_run_config(model, source, overrides, *defaults), warms_up
    return read_config(source, overrides, *defaults), warms_up


def _find_agent(model: str, checkpoint: str) -> tuple[Path, str]:
    """The model to play with, and its name for the pages. Raises CheckpointError when there is none."""
    from repro_rl.run.model_paths import find_agent

    agent = find_agent(model, checkpoint)
    if agent == Path(model) and not agent.exists():  # a hub name or api:MODEL
        return agent, model
    return agent, f"{Path(model).name} ({agent.name})"


def _play_seed(run: PilotRun, seed: int) -> tuple[dict[str, str], list[str]]:
    """Make what one seed lacks and play its conditions; those left out with the reason, and remarks."""
    from repro_rl.policy.loading.checksums import fingerprint
    from repro_rl.run.lineage import taught_modes
    from repro_rl.study.pilot import finished, open_pilot, seed_config, split_taught
    from repro_rl.study.pilot_results import folder

    config = seed_config(run.config, seed)
    seed_folder = folder(run.out, seed)
    weights = fingerprint(run.agent) if run.agent else ""
    open_pilot(config, seed_folder, run.agent_name, weights, run.demos)
    demos = _demonstrations(run, config, seed_folder)
    agent = run.agent or run_warmup_stage(config, demos, seed_folder / "warmup")
    played, left_out, remarks = split_taught(config.prompt.style, run.conditions, taught_modes(agent))
    is_api = api_model(agent) is not None
    waiting = [item for item in played if finished(seed_folder, item, is_api) is None]
    for item in played:
        if item not in waiting:
            say(f"seed {seed}, {item.name}: played before")
    if waiting:
        _play_conditions(run, config, agent, waiting, demos)
    return left_out, remarks


def _demonstrations(run: PilotRun, config: RunConfig, seed_folder: Path) -> Path:
    """The folder of the demonstrations of one seed, whose settings are ``config``."""
    from repro_rl.demos.environment import check_environment
    from repro_rl.files import read_json
    from repro_rl.files.names import DEMOS_FILE

    if run.demos is not None:
        check_environment(run.demos, run.config.env)
        return run.demos
    if run.agent is None:
        return run_demos_stage(config, seed_folder / "demos")
    made = run_demos_stage(run.config, run.out / "demos")  # one set for all seeds: annotating may cost money
    if run.policy is not None:
        annotation = read_json(made / DEMOS_FILE, "settings of demonstrations").get("annotation")
        _count(run, made / DEMOS_FILE, annotation.get("usage") if isinstance(annotation, dict) else None)
    return made


def _count_finished(run: PilotRun, seeds: Sequence[int]) -> None:
    """Count against the budget what finished conditions have used; they are not asked for again."""
    from repro_rl.run.evaluations import evaluation_file
    from repro_rl.study.pilot import finished
    from repro_rl.study.pilot_results import folder

    for seed in seeds if run.policy is not None else ():
        for item in run.conditions:
            result = finished(folder(run.out, seed), item, True)
            if result is not None:
                _count(run, evaluation_file(folder(run.out, seed), item.name), result.get("api"))


def _count(run: PilotRun, path: Path, usage: Any) -> None:
    """Count the ``usage`` in the file ``path``, once; None is none. Raises DataError naming the file."""
    from repro_rl.files import check_record
    from repro_rl.policy.http.usage import EarlierUsage

    if run.policy is not None and usage is not None:
        usage = check_record(EarlierUsage, usage, file=path, record="usage of the server")
        run.policy.client.spending.add_earlier(str(path), usage)


def _play_conditions(
    run: PilotRun, config: RunConfig, agent: Path, conditions: Sequence[Condition], demos: Path
) -> None:
    """Play the panel once in every condition, with one loaded model; ``config``: of one seed."""
    from repro_rl.demos import load_demos
    from repro_rl.run.setup import set_up
    from repro_rl.study.evaluate import EvalHooks
    from repro_rl.study.pilot import PilotAgent, play_condition
    from repro_rl.study.pilot_results import folder

    experts, _ = load_demos(demos)
    with ExitStack() as stack:
        policy = run.policy or stack.enter_context(closing(set_up(config).agent(agent)))
        for item in conditions:
            with bar(f"seed {config.seed} {item.name}") as progress:
                out = folder(run.out, config.seed)
                resumed = partial(progress.continuing, f"{item.name} in {out}")
                hooks = EvalHooks(progress.total, progress.add, on_resumed=resumed)
                play_condition(config, PilotAgent(agent, policy, experts), item, out, hooks)
