"""Stages in processes of their own: one that fails, hangs or loses the device takes no other with it."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from job import Job
from journal import CUT_OFF, DONE, FAILED, RUNNING, Deadline, Journal, OutOfTimeError

GRACE = 10.0  # seconds that a stage may overrun its budget before it is ended

Body = Callable[[Job, Journal, str, Deadline], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """A name, what runs, and its share of the whole time."""

    name: str
    body: Body
    share: float  # of the total; a stage gets what is left of its own and all earlier shares
    needs: tuple[str, ...] = ()  # stages without which it cannot run


def run_stages(job: Job, stages: list[Stage], out: Path, minutes: float) -> Journal:
    """All stages that are not done yet, one after another; returns the journal."""
    begin, total = time.monotonic(), 60 * minutes
    allotted = 0.0
    for stage in stages:
        allotted += stage.share * total
        journal = Journal(out)
        if journal.status(stage.name) == DONE:
            print(f"{stage.name}: done before", flush=True)
            continue
        budget = allotted - (time.monotonic() - begin)
        _run_stage(job, stage, journal, budget)
        entry = Journal(out).content["stages"][stage.name]
        reason = f": {entry['error'].splitlines()[-1]}" if "error" in entry else ""
        print(f"{stage.name}: {entry['status']} in {entry['seconds']:.1f} s{reason}", flush=True)
    return Journal(out)


def _run_stage(job: Job, stage: Stage, journal: Journal, budget: float) -> None:
    journal.begin(stage.name, budget)
    missing = [name for name in stage.needs if journal.status(name) != DONE]
    if missing or budget <= 0:
        why = f"needs {', '.join(missing)}" if missing else "no time was left"
        journal.end(stage.name, FAILED if missing else CUT_OFF, 0.0, why)
        return
    # Forked: torch is imported already, and CUDA is not in use in this process.
    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(job, stage, journal.path.parent, budget)
    )
    begin = time.monotonic()
    process.start()
    process.join(budget + GRACE)
    if process.is_alive():
        process.kill()
        process.join()
    after = Journal(journal.path.parent)
    if after.status(stage.name) == RUNNING:
        why = f"ended from outside with exit code {process.exitcode}: over its budget, or killed"
        after.end(stage.name, CUT_OFF, time.monotonic() - begin, why)


def _child(job: Job, stage: Stage, out: Path, budget: float) -> None:
    journal = Journal(out)
    begin = time.monotonic()
    try:
        stage.body(job, journal, stage.name, Deadline(budget))
    except OutOfTimeError as error:
        journal.end(stage.name, CUT_OFF, time.monotonic() - begin, str(error))
    except BaseException:  # whatever it is, it belongs into the journal
        journal.end(stage.name, FAILED, time.monotonic() - begin, traceback.format_exc())
    else:
        journal.end(stage.name, DONE, time.monotonic() - begin)
