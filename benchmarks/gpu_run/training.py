"""One warm start, then RePro-PO and GiGPO from it, for as many iterations as fit into their time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from job import Job
from journal import Deadline, Journal

from repro_rl.config import RunConfig, load_config
from repro_rl.demos import collect_demos, load_demos, save_demos
from repro_rl.run.setup import set_up
from repro_rl.run.validation import validation_success
from repro_rl.train import RLRun, WarmupRun

SPARE = 1.2  # an iteration or update is begun if so many times the last one's seconds are left
VALIDATION_SECONDS = 30.0  # kept free for the validation at the end
LEAST_SECONDS = 20.0  # with fewer left a validation is not begun: a stage that is ended in it is not done


class OutOfTime(Exception):
    """A warmup has used up its seconds; what it has learned is kept."""


def settings(job: Job, method: str, *more: str) -> RunConfig:
    """The run's settings for a method."""
    return load_config(job.recipe, [*job.settings, f"method={method}", *more])


def warm_up(job: Job, journal: Journal, stage: str, deadline: Deadline, work: Path) -> None:
    """Demonstrations, unless ``work/demos`` has them, and supervised updates until the time is over.

    An interrupted warmup begins again, unless a checkpoint of it was written.
    """
    config = settings(job, "repro")
    setup = set_up(config)
    begin = time.perf_counter()
    if not (work / "demos").exists():
        experts, labelled = collect_demos(
            setup.pool.first, setup.panel(config.demos.split).ids, config.demos, seed=config.seed
        )
        save_demos(work / "demos", experts, labelled)
    journal.result(stage, "demos", {"seconds": time.perf_counter() - begin, **count(work / "demos")})
    run = WarmupRun(setup, work / "demos", work / "warm")
    rows: list[dict[str, Any]] = journal.content["stages"][stage]["rows"].get("updates", [])
    rows = rows[: run.iteration]
    last = time.perf_counter()

    def on_row(row: dict[str, Any]) -> None:
        nonlocal last
        now = time.perf_counter()
        rows.append({**row, "seconds": now - last, **memory(job)})
        journal.rows(stage, "updates", rows)
        if deadline.left() - VALIDATION_SECONDS < SPARE * (now - last):
            raise OutOfTime
        last = now

    try:
        run.train(on_row)
    except OutOfTime:
        journal.result(stage, "cut_short_after", run.iteration)
    begin = time.perf_counter()
    run.write_model()
    journal.result(stage, "save_seconds", time.perf_counter() - begin)
    validate(
        journal, stage, deadline, lambda: validation_success(setup, run.context, run.policy, setup.prompts)
    )


def validate(journal: Journal, stage: str, deadline: Deadline, success: Callable[[], float]) -> None:
    """The success rate and its seconds, or that there was no time for it."""
    if deadline.left() < LEAST_SECONDS:
        journal.result(stage, "validation", "no time")
        return
    begin = time.perf_counter()
    rate = success()
    journal.result(stage, "validation", {"success": rate, "seconds": time.perf_counter() - begin})


def train(method: str, job: Job, journal: Journal, stage: str, deadline: Deadline, work: Path) -> None:
    """Iterations of one method until the time is over, then the validation. A repeat goes on where it was."""
    config = settings(job, method, f"train.init={work / 'warm' / 'model'}", f"train.demos={work / 'demos'}")
    setup = set_up(config)
    run = RLRun(setup, work / stage)
    rows: list[dict[str, Any]] = journal.content["stages"][stage]["rows"].get("iterations", [])
    rows = rows[: run.iteration]
    longest = 0.0
    while not run.done() and deadline.left() - VALIDATION_SECONDS > SPARE * longest:
        begin = time.perf_counter()
        if job.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        row = run.step()
        rows.append({**row, **memory(job)})
        journal.rows(stage, "iterations", rows)
        if run.iteration % config.train.save_every == 0:
            run.save()
        longest = max(longest, time.perf_counter() - begin)
    run.save_unsaved()
    validate(
        journal, stage, deadline, lambda: validation_success(setup, run.context, run.sampler, setup.prompts)
    )
    run.sampler.close()


def count(demos: Path) -> dict[str, int]:
    """Episodes in a folder of demonstrations."""
    experts, labelled = load_demos(demos)
    return {"expert": len(experts), "labelled": len(labelled)}


def memory(job: Job) -> dict[str, int]:
    """Most bytes that tensors took on the device."""
    cuda = job.device.startswith("cuda")
    return {"device_bytes": torch.cuda.max_memory_allocated()} if cuda else {}
