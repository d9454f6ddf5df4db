"""How far the jobs of a study are, and how long they may still take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from repro_rl.cli.show import console, say, visible

if TYPE_CHECKING:
    from repro_rl.study.jobs import Job
    from repro_rl.study.runner import Running

SHORT_WEIGHT = 0.2  # of a job without iterations, where one with iterations weighs 1
TICK_SECONDS = 0.5  # shortest time between two readings of the run folders


class JobsDisplay:
    """One line for each running job and one for all; without a terminal a line for each event.

    Progress is counted in weights: 1 for a job that trains, ``SHORT_WEIGHT`` for one without iterations.
    """

    def __init__(self, label: str, jobs: Sequence[Job]):
        self.label = label
        self._weights = {job.name: 1.0 if job.iterations else SHORT_WEIGHT for job in jobs}
        self._done: set[str] = set()
        self._earlier: set[str] = set()  # jobs that an earlier call had finished
        self._begin = time.monotonic()
        self._last_tick = 0.0
        self._first_share: dict[str, float] = {}  # job -> share done when this call first saw it run
        self._share: dict[str, float] = {}  # running job -> share done
        self._live = console.is_terminal or console.is_jupyter
        self._progress = Progress(
            TextColumn("{task.description:<34}", markup=False),
            BarColumn(bar_width=14),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[note]}", markup=False),
            console=console,
        )
        self._total = self._progress.add_task(label, total=max(sum(self._weights.values()), 1e-9), note="")
        self._rows: dict[str, TaskID] = {}
        self._view = Live(self._progress, console=console, refresh_per_second=4, auto_refresh=self._live)

    def __enter__(self) -> JobsDisplay:
        if self._live:
            self._view.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._live:
            self._view.stop()
        elif self._earlier:
            say(f"{self.label}: {len(self._earlier)} of {len(self._weights)} jobs had finished before")

    def event(self, kind: str, job: Job, text: str) -> None:
        """A job started or ended; see ``study.runner.OnEvent``."""
        if kind != "started":
            self._done.add(job.name)
        if kind == "kept":
            self._earlier.add(job.name)
            return
        first = text.splitlines()[0] if text else ""
        count = f"[{len(self._done)}/{len(self._weights)}]"
        left = "" if kind == "started" else self._time_left()
        say(visible(f"{count} {kind} {job.name}{f' ({first})' if first else ''}{left}"))

    def tick(self, running: Sequence[Running]) -> None:
        """Read how far the running jobs are; does nothing when the last reading is fresh."""
        from repro_rl.study.runner import job_progress

        now = time.monotonic()
        if now - self._last_tick < TICK_SECONDS:
            return
        self._last_tick = now
        self._share = {}
        for entry in running:
            name = entry.job.name
            share, note = job_progress(entry.job)
            self._first_share.setdefault(name, share)
            self._share[name] = share
            if self._live:
                self._show_row(name, share, note)
        if self._live:
            for name in [name for name in self._rows if name not in self._share]:
                self._progress.remove_task(self._rows.pop(name))
            note = f"{len(self._done)}/{len(self._weights)} done, {len(running)} running{self._time_left()}"
            self._progress.update(self._total, completed=self._reached(), note=note)

    def _show_row(self, name: str, share: float, note: str) -> None:
        if name not in self._rows:
            self._rows[name] = self._progress.add_task(f"  {name}", total=1.0, note="")
        self._progress.update(self._rows[name], completed=share, note=note)

    def _reached(self) -> float:
        """Weight of all that is done, running jobs in part."""
        partial = sum(
            share * self._weights[name] for name, share in self._share.items() if name not in self._done
        )
        return sum(self._weights[name] for name in self._done) + partial

    def _time_left(self) -> str:
        """At the pace of this call, so what was done before it does not count as its work."""
        before = sum(self._weights[name] for name in self._earlier) + sum(
            share * self._weights[name] for name, share in self._first_share.items() if share < 1.0
        )
        gained, left = self._reached() - before, sum(self._weights.values()) - self._reached()
        if gained <= 0 or left <= 0:
            return ""
        minutes = (time.monotonic() - self._begin) / gained * left / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ", under a minute left"
