"""``repro-rl compare``: methods x seeds from one warm start per seed, with statistics and a page."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from repro_rl.cli.app import app
from repro_rl.cli.show import console, say, table_without, visible
from repro_rl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from repro_rl.study.jobs import Job
    from repro_rl.study.plan import Study
    from repro_rl.study.runner import Outcome, Running

# Columns that make a table too wide to read in a terminal.
WIDE = {
    "95 % bootstrap",
    "best",
    "worst",
    "each seed",
    "p",
}
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
            metavar="[STUDY] [SECTION.KEY=VALUE]...",
            help="a study file (.yaml) or shipped study by name; settings for every run",
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="recipe, instead of the study's")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="arms by name, instead of the study's; repeatable"),
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
    from repro_rl.study.folder import check_same, write_study
    from repro_rl.study.jobs import final_jobs, sweep_jobs
    from repro_rl.study.runner import locked
    from repro_rl.study.sweep import choose

    study = _study(words or [], config, methods, seeds, env_steps, out)
    if not sweep:
        study = study.model_copy(update={"sweep": None})
    if only is Only.table:
        _pages(study, out)
        return
    check_same(out, study)
    if dry_run:
        _print_commands(study, out)
        return
    failures: list[Outcome] = []
    with locked(out) as lock, _terminable():
        first = sweep_jobs(study, out)
        if only is not Only.final and first:
            write_study(out, study, first, parallel=jobs)
            failures.append(_watched("sweep", first, out, jobs, lock))
        chosen = choose(study, out)
        for name, knobs in chosen.items():
            say(f"sweep chose for {name}: {' '.join(f'{key}={value}' for key, value in knobs.items())}")
        ready = _chosen_arms(study, chosen)
        if only is not Only.sweep and ready is not None:
            second = final_jobs(ready, out, chosen)
            write_study(out, study, [*first, *second], parallel=jobs)
            failures.append(_watched("study", second, out, jobs, lock))
            write_study(out, study, [*first, *second], parallel=jobs)
        else:
            write_study(out, study, first, parallel=jobs)
    problem: DataError | None = None
    if only is not Only.sweep:
        try:
            _pages(study, out)
        except DataError as error:
            problem = error
    failed = _print_failures(failures, out)
    if problem is not None and not failed:
        raise problem
    if failed or ready is None or len(ready.methods) < len(study.methods):
        raise typer.Exit(1)


def _study(
    words: Sequence[str],
    config: str | None,
    methods: Sequence[str] | None,
    seeds: str | None,
    env_steps: int | None,
    out: Path,
) -> Study:
    """The study that the command line means; without any, the one that the folder holds."""
    from repro_rl.study.folder import read_study
    from repro_rl.study.plan import Study, load_study

    names = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if len(names) > 1:
        raise ConfigError(f"One study at a time, not {', '.join(names)}; settings are SECTION.KEY=VALUE.")
    there = read_study(out)
    changes: dict[str, Any] = {
        "recipe": config,
        "methods": list(methods) if methods else None,
        "seeds": parse_seeds(seeds) if seeds else None,
        "env_steps": env_steps,
        "set": settings,
    }
    if names:
        return load_study(names[0], **changes)
    if there is not None and not any(changes.values()):
        return Study.model_validate(there["study"])
    if not methods:
        changes["methods"] = DEFAULT_METHODS
    return load_study(None, **changes)


def parse_seeds(text: str) -> list[int]:
    """ "0,1,5" and "0-4", or both mixed. Raises ConfigError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(f"--seeds {text!r}: give numbers such as 0,1,2 or 0-4.")
        found += range(int(first), int(last or first) + 1)
    return found


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


def _pages(study: Study, out: Path) -> None:
    from repro_rl.report.comparison import heading, headline, write_comparison
    from repro_rl.report.comparison_tables import markdown, tables
    from repro_rl.study.comparison import compare as compute
    from repro_rl.study.sweep import choose

    data = compute(study, out, choose(study, out))
    paths = write_comparison(data, out)
    for block in data["evaluations"]:
        say(f"\n{heading(block)}")
        for table in [t for t in tables(block) if t.bars]:
            if console.is_terminal:
                console.print(table_without(table, WIDE))
            else:  # a log has no width to crop to
                say(visible(markdown(table)))
        for note in block["notes"]:
            say(f"Note: {note}")
    for line in headline(data):
        say(line)
    say("Written: " + ", ".join(str(path) for path in paths))


def _print_commands(study: Study, out: Path) -> None:
    """Every command, in an order in which a person could type them."""
    from repro_rl.study.jobs import final_jobs, sweep_jobs
    from repro_rl.study.runner import is_finished, shown
    from repro_rl.study.sweep import choose

    chosen = choose(study, out)
    for job in dict.fromkeys([*sweep_jobs(study, out), *final_jobs(study, out, chosen)]):
        say(f"# {job.name}{' (finished)' if is_finished(out, job) else ''}")
        for command in job.commands:
            say(f"OMP_NUM_THREADS=1 {shown(command)}")
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


def _watched(label: str, jobs: Sequence[Job], out: Path, parallel: int, lock: int | None) -> Outcome:
    from repro_rl.study.runner import run_jobs

    with Display(label, jobs) as display:
        return run_jobs(jobs, out, parallel=parallel, on_event=display.event, on_tick=display.tick, lock=lock)


@contextmanager
def _terminable() -> Iterator[None]:
    """An asked-for end (SIGTERM) ends the runs too, as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Display:
    """What a person sees: one line a running job and one for all; without a terminal a line an event."""

    def __init__(self, label: str, jobs: Sequence[Job]):
        self.label = label
        self.weights = {job.name: 1.0 if job.iterations else 0.2 for job in jobs}
        self.done: set[str] = set()
        self.settled = 0.0  # weight of what was finished before
        self.begin = time.monotonic()
        self.shown_at = 0.0
        self.start_share: dict[str, float] = {}
        self.live = console.is_terminal or console.is_jupyter
        self.progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=14),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[note]}"),
            console=console,
        )
        self.total = self.progress.add_task(label, total=max(sum(self.weights.values()), 1e-9), note="")
        self.rows: dict[str, TaskID] = {}
        self.now: dict[str, float] = {}  # how far each running job is
        self.view = Live(self.progress, console=console, refresh_per_second=4, auto_refresh=self.live)

    def __enter__(self) -> Display:
        if self.live:
            self.view.start()
        return self

    def __exit__(self, *problem: object) -> None:
        kept = sum(1 for name in self.done if name in self.start_share and self.start_share[name] == 1.0)
        if self.live:
            self.view.stop()
        elif kept:
            say(f"{self.label}: {kept} of {len(self.weights)} jobs had finished before")

    def event(self, kind: str, job: Job, text: str) -> None:
        if kind != "started":
            self.done.add(job.name)
        if kind == "kept":
            self.settled += self.weights[job.name]
            self.start_share[job.name] = 1.0
            return
        first = text.splitlines()[0] if text else ""
        count = f"[{len(self.done)}/{len(self.weights)}]"
        say(visible(f"{count} {kind} {job.name}{f' ({first})' if first else ''}{self._eta_text(kind)}"))

    def tick(self, running: Sequence[Running]) -> None:
        """Read how far the runs are, twice a second; only where someone looks, or for the ETA."""
        now = time.monotonic()
        if now - self.shown_at < 0.5:
            return
        self.shown_at = now
        from repro_rl.study.runner import job_progress

        names = {entry.job.name for entry in running}
        self.now = dict.fromkeys(names, 0.0)
        for entry in running:
            share, words = job_progress(entry.job)
            self.start_share.setdefault(entry.job.name, share)
            self.now[entry.job.name] = share
            if self.live:
                if entry.job.name not in self.rows:
                    self.rows[entry.job.name] = self.progress.add_task(
                        f"  {escape(entry.job.name)}", total=1.0, note=""
                    )
                self.progress.update(self.rows[entry.job.name], completed=share, note=escape(words))
        if self.live:
            for name in [name for name in self.rows if name not in names]:
                self.progress.remove_task(self.rows.pop(name))
            note = f"{len(self.done)}/{len(self.weights)} done, {len(running)} running{self._eta_text('')}"
            self.progress.update(self.total, completed=self._reached(), note=note)

    def _reached(self) -> float:
        """Weight of all that is done, running jobs in part."""
        partial = sum(share * self.weights[name] for name, share in self.now.items() if name not in self.done)
        return sum(self.weights[name] for name in self.done) + partial

    def _eta_text(self, kind: str) -> str:
        """What is left at the pace of this call, which does not count what had been done before it."""
        before = self.settled + sum(
            share * self.weights[name] for name, share in self.start_share.items() if share < 1.0
        )
        gained, left = self._reached() - before, sum(self.weights.values()) - self._reached()
        if kind == "started" or gained <= 0 or left <= 0:
            return ""
        minutes = (time.monotonic() - self.begin) / gained * left / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ", under a minute left"
