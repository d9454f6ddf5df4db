"""``repro-rl compare``: methods x seeds from one warm start per seed, with statistics and a page."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.jobs_display import JobsDisplay
from repro_rl.cli.options import parse_seeds, split_words
from repro_rl.cli.show import allowed, console, say, show_table, table_without, visible
from repro_rl.cli.terminal import careful
from repro_rl.errors import ConfigError, DataError, require_extra

if TYPE_CHECKING:
    from repro_rl.study.definition import Study
    from repro_rl.study.jobs import Job
    from repro_rl.study.runner import Outcome, Workers

# Columns that make a table too wide to read in a terminal.
WIDE = {"95 % bootstrap", "best", "worst", "each seed", "p"}
DEFAULT_METHODS = ["repro", "gigpo"]


class Only(StrEnum):
    """A stage to do alone."""

    sweep = "sweep"
    final = "final"
    table = "table"


@app.command()
def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY|SECTION.KEY=VALUE",
            help="a study file (.yaml) or shipped study by name; settings for every run",
            autocompletion=complete.studies,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", help="recipe, instead of the study's", autocompletion=complete.recipes
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="the study's arms with these names, or methods, alone; repeatable",
            autocompletion=complete.methods,
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="e.g. 0,1,2 or 0-4, instead of the study's")] = None,
    env_steps: Annotated[
        int | None, typer.Option("--env-steps", help="environment steps a run, instead of the study's")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="folder of the study (continued if it exists)")
    ] = Path("runs/study"),
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="runs at once, one thread each")] = 1,
    only: Annotated[
        Only | None, typer.Option(help="sweep: choose settings; final: run; table: make the pages again")
    ] = None,
    sweep: Annotated[bool, typer.Option(help="choose settings first, where the study has a sweep")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the commands, run nothing")] = False,
) -> None:
    """Compare methods over seeds: one warm start a seed, equal budgets, paired statistics, a page."""
    from repro_rl.study.folder import check_same, go_to_base
    from repro_rl.study.preflight import check_study

    names, settings = split_words(words or [])
    changes: dict[str, Any] = {
        "recipe": source,
        "methods": list(methods) if methods else None,
        "seeds": parse_seeds(seeds) if seeds else None,
        "env_steps": env_steps,
        "set": settings,
    }
    if not names and _continues(changes):
        out = go_to_base(out)
    study = _study(names, changes, out)
    if not sweep:
        study = study.model_copy(update={"sweep": None})
    if only is Only.table:
        _write_pages(study, out)
        return
    check_same(out, study)
    if not dry_run:
        require_extra("torch")  # before the demonstrations, which do without
    for line in check_study(study):
        say(f"{'# ' if dry_run else ''}{careful(line)}")
    if dry_run:
        _print_commands(study, out)
        return
    failures, ready = _run_stages(study, out, jobs, only)
    problem: DataError | None = None
    if only is not Only.sweep:
        try:
            _write_pages(study, out)
        except DataError as error:  # of runs that failed; if so, their logs say more
            problem = error
    failed = _print_failures(failures, out)
    if problem is not None and not failed:
        raise problem
    if failed or ready is None or len(ready.methods) < len(study.methods):
        raise typer.Exit(1)


def _run_stages(
    study: Study, out: Path, parallel: int, only: Only | None
) -> tuple[list[Outcome], Study | None]:
    """The sweep, then the runs with the settings that it chose; ``parallel`` jobs at once.

    Returns how the jobs ended, and the study with the arms whose settings are chosen (see ``_chosen_arms``).
    """
    from repro_rl.study.definition import run_config
    from repro_rl.study.folder import sweep_study, write_study
    from repro_rl.study.jobs import final_jobs, sweep_jobs
    from repro_rl.study.runner import Workers, locked
    from repro_rl.study.sweep import choose

    outcomes: list[Outcome] = []
    devices = frozenset(run_config(study, item).policy.device for item in study.methods)
    with locked(out) as lock:
        workers = Workers(parallel, lock, devices)
        sweep_study(out)
        first = sweep_jobs(study, out)
        if only is not Only.final and first:
            write_study(out, study, first, parallel=parallel)
            outcomes.append(_watched("sweep", first, out, workers))
        chosen = choose(study, out)
        for name, settings in chosen.items():
            say(f"sweep chose for {name}: {' '.join(f'{key}={value}' for key, value in settings.items())}")
        ready = _chosen_arms(study, chosen)
        if only is not Only.sweep and ready is not None:
            second = final_jobs(ready, out, chosen)
            write_study(out, study, [*first, *second], parallel=parallel)
            outcomes.append(_watched("study", second, out, workers))
            write_study(out, study, [*first, *second], parallel=parallel)
        else:
            write_study(out, study, first, parallel=parallel)
    return outcomes, ready


def _study(names: Sequence[str], changes: dict[str, Any], out: Path) -> Study:
    """The study that the command line means; without a name, recipe or arms the one that the folder holds.

    ``changes``: what replaces the study's own; None or empty leaves it. Raises ConfigError for several names,
    for folders, and where nothing says which study is meant.
    """
    from repro_rl.study.definition import load_study, studies, study_of
    from repro_rl.study.folder import check_own, read_study

    _check_names(names)
    present = read_study(out)
    if names:
        return load_study(names[0], **changes)
    if not _continues(changes):
        return load_study(None, **{**changes, "methods": changes.get("methods") or DEFAULT_METHODS})
    if present is None:
        raise ConfigError(
            f"There is no study in {out}; name one (a file, or shipped: {', '.join(studies())}), or give -c "
            "and -m."
        )
    check_own(out, present, allowed)
    if not any(changes.values()):
        return study_of(present["study"])
    settings = [*present["study"].get("set", []), *changes.get("set", [])]
    given = {key: value for key, value in changes.items() if value}
    return load_study(None, **{**present["study"], **given, "set": settings})


def _continues(changes: dict[str, Any]) -> bool:
    """Whether a command line that names no study means the one in its folder."""
    return not (changes.get("recipe") or changes.get("methods"))


def _check_names(names: Sequence[str]) -> None:
    """Raises ConfigError for more than one study, and for folders, saying which command takes those."""
    from repro_rl.study.definition import studies
    from repro_rl.study.folder import FILE

    folders = [name for name in names if Path(name).is_dir() and name not in studies()]
    if folders and (Path(folders[0]) / FILE).exists():
        raise ConfigError(f"{folders[0]} is the folder of a study; to continue it, give -o {folders[0]}.")
    if folders:
        raise ConfigError(
            f"{', '.join(folders)}: a folder is no study. To put runs beside each other on one page: "
            f"repro-rl report {' '.join(folders)}"
        )
    if len(names) > 1:
        raise ConfigError(f"One study at a time, not {', '.join(names)}; settings are SECTION.KEY=VALUE.")


def _chosen_arms(study: Study, chosen: dict[str, Any]) -> Study | None:
    """The study without arms whose sweep is incomplete; None when none is left."""
    from repro_rl.study.sweep import is_chosen

    ready = [item for item in study.methods if is_chosen(study, item, chosen)]
    for item in study.methods:
        if item not in ready:
            say(f"{item.name}: its sweep is not complete, so its final runs wait.")
    if not ready:
        return None
    names = [item.name for item in ready]
    return study.model_copy(
        update={"methods": ready, "references": [name for name in study.references if name in names]}
    )


def write_study_pages(out: Path) -> None:
    """Make the pages of the study in a folder again. Raises ConfigError for another person's study."""
    from repro_rl.study.folder import go_to_base

    out = go_to_base(out)
    _write_pages(_study([], {}, out), out)


def _write_pages(study: Study, out: Path) -> None:
    """Compute the statistics, write the pages, and print the tables and the headline."""
    from repro_rl.report.comparison import heading, headline, write_comparison
    from repro_rl.report.comparison_tables import tables
    from repro_rl.study.comparison import comparison_data
    from repro_rl.study.sweep import choose

    data = comparison_data(study, out, choose(study, out))
    paths = write_comparison(data, out)
    for block in data["evaluations"]:
        say(f"\n{heading(block)}")
        for table in [t for t in tables(block) if t.bars]:
            show_table(table_without(table, WIDE if console.is_terminal else ()))
        for note in block["notes"]:
            say(f"Note: {note}")
    for line in headline(data):
        say(line)
    say("Written: " + ", ".join(str(path) for path in paths))


def _print_commands(study: Study, out: Path) -> None:
    """Every command, in an order in which a person could type them."""
    from repro_rl.study.jobs import final_jobs, sweep_jobs
    from repro_rl.study.runner import command_line, is_finished
    from repro_rl.study.sweep import choose

    chosen = choose(study, out)
    for job in dict.fromkeys([*sweep_jobs(study, out), *final_jobs(study, out, chosen)]):
        say(f"# {job.name}{' (finished)' if is_finished(out, job) else ''}")
        for command in job.commands:
            say(f"OMP_NUM_THREADS=1 {command_line(command)}")
    if study.sweep is not None and not chosen:
        say("# the final runs take the settings that the sweep chooses; they are shown with the recipe's")


def _print_failures(outcomes: Sequence[Outcome], out: Path) -> bool:
    """Each failure with the end of its log; True when there was one."""
    failed = {name: text for outcome in outcomes for name, text in outcome.failed.items()}
    skipped = {name: text for outcome in outcomes for name, text in outcome.skipped.items()}
    for name, text in failed.items():
        say(f"\nFAILED {name}; log: {out / 'jobs' / f'{name}.log'}\n{visible(text)}")
    for name, cause in skipped.items():
        say(f"NOT RUN {name}: {cause} failed")
    if failed:
        say(f"\n{len(failed)} failed, {len(skipped)} not run. Repeat the command to try them again.")
    return bool(failed)


def _watched(label: str, jobs: Sequence[Job], out: Path, workers: Workers) -> Outcome:
    """Run ``jobs`` behind a display of how far they are."""
    from repro_rl.study.runner import run_jobs

    with JobsDisplay(label, jobs) as display:
        return run_jobs(jobs, out, workers, on_event=display.event, on_tick=display.tick)
