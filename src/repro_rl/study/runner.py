"""Run the jobs of a study: several processes at once, continued by repeating, a failure stops no other job.

One thread polls the processes, so there is nothing to synchronise. Every command's output goes to the job's
log. A finished job leaves a record and is not run again as long as its commands are the same.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from typing_extensions import TypedDict

from repro_rl.config.memory_settings import without_memory
from repro_rl.errors import DataError
from repro_rl.files import (
    LOCK_FILE,
    check_record,
    finite,
    naming,
    only_writer,
    parse_object,
    read_json_if_any,
    write_json,
)
from repro_rl.files.names import METRICS_FILE
from repro_rl.files.records import Count, Finite, Text
from repro_rl.interrupts import ChildProcess, child_environment, child_pipe, deferred, end_children
from repro_rl.study.fork_server import can_fork, fork_server
from repro_rl.study.jobs import Job

PROGRAM = (sys.executable, "-c", "from repro_rl.cli import main; main()")
TAIL = 25  # lines of a log that a failure shows
POLL = 0.2  # seconds

Done = dict[str, Any]  # a job's record
Start = Callable[[Sequence[str], IO[bytes]], ChildProcess]  # a command, and the log that it appends to
# ("started" | "finished" | "failed" | "skipped" | "kept", job, text)
OnEvent = Callable[[str, Job, str], None]


@dataclass(slots=True)
class Running:
    """A job that has a process."""

    job: Job
    begin: float
    log: IO[bytes]
    number: int = 0  # index of the command that runs
    process: ChildProcess | None = None


@dataclass(slots=True, frozen=True)
class Workers:
    """The processes that a study may have."""

    parallel: int = 1  # at once
    lock: int | None = None  # descriptor of the folder's lock, for them to hold as well
    # ``policy.device`` of the commands, which are forked where ``can_fork`` says so; None: never forked
    devices: frozenset[str] | None = None


@dataclass(slots=True, frozen=True)
class InheritedDescriptors:
    """Descriptors that the processes inherit."""

    lock: int | None  # of the study's folder; None where there are no locks
    pipe: int | None  # whose end tells them that this process has ended; None on Windows

    @property
    def descriptors(self) -> list[int]:
        if os.name == "nt":  # where processes inherit none
            return []
        return [number for number in (self.lock, self.pipe) if number is not None]

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes: on one thread, because runs beside each other contend for cores."""
        return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", **child_environment(self.pipe)}


@dataclass(slots=True)
class Outcome:
    """What became of the jobs, by name. ``failed``: the reason with the end of the log."""

    finished: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # finished before
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # name -> the job it needed


def command_line(command: Sequence[str]) -> str:
    """The command as a person would type it."""
    return f"repro-rl {shlex.join(command)}"


class _Record(TypedDict, total=False):
    """The fields of a job's record that are used."""

    status: Text
    seconds: Finite
    attempts: Count
    commands: list[list[Text]]


def record_file(out: Path, job: Job) -> Path:
    """What is known of a job in the study ``out``: its status, seconds, attempts and commands."""
    return out / "jobs" / f"{job.name}.json"


def log_file(out: Path, job: Job) -> Path:
    """What a job's commands have printed."""
    return out / "jobs" / f"{job.name}.log"


def portable(out: Path, command: Sequence[str]) -> list[str]:
    """The command without the study's own folder, which may be moved."""
    prefix = f"{out}{os.sep}"
    return [f"{{out}}/{part[len(prefix) :]}" if part.startswith(prefix) else part for part in command]


def read_record(out: Path, job: Job) -> Done:
    """The job's record, empty when there is none. Raises DataError for a broken one."""
    path = record_file(out, job)
    check_record(_Record, record := read_json_if_any(path), file=path)
    return record


def is_finished(out: Path, job: Job) -> bool:
    """Have the job's commands finished, exactly these but for memory settings?"""
    record = read_record(out, job)
    now, then = ([portable(out, c) for c in job.commands], record.get("commands") or [])
    same = [without_memory(command) for command in now] == [without_memory(command) for command in then]
    return record.get("status") == "finished" and same


def commands_of(out: Path, job: Job) -> list[list[str]]:
    """The job's commands without the study's own folder: those that have finished, else those to run."""
    if is_finished(out, job):
        return list(read_record(out, job)["commands"])
    return [portable(out, command) for command in job.commands]


def locked(out: Path) -> AbstractContextManager[int | None]:
    """Only one comparison works in a folder; its children hold the lock too, so orphans are noticed.

    Yields the descriptor to hand on. Raises PreflightError. No lock where the file system has none.
    """
    return only_writer(out / LOCK_FILE, "comparison")


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    workers: Workers = Workers(),
    *,
    on_event: OnEvent | None = None,
    on_tick: Callable[[Sequence[Running]], None] | None = None,
) -> Outcome:
    """Run every job that is not finished yet, in the order given.

    A job starts when all of ``after`` have finished (a name that is no job of this call counts as finished).
    If one of them failed it is skipped. On an interruption the processes are ended, and the call can be
    repeated.
    """
    outcome, notify = Outcome(), on_event or (lambda kind, job, text: None)
    names = {job.name for job in jobs}
    waiting: list[Job] = []
    for job in jobs:
        if is_finished(out, job):
            outcome.kept.append(job.name)
            notify("kept", job, "finished before")
        else:
            waiting.append(job)
    running: list[Running] = []
    with ExitStack() as stack:
        inherited = InheritedDescriptors(workers.lock, stack.enter_context(child_pipe()))
        server = (
            stack.enter_context(fork_server(inherited.environment, inherited.descriptors))
            if waiting and workers.devices is not None and can_fork(workers.devices)
            else None
        )

        def start(command: Sequence[str], log: IO[bytes]) -> ChildProcess:
            return launch(command, log, inherited) if server is None else server.start(command, log.name)

        stack.callback(_end, running)
        while waiting or running:
            for entry in list(running):
                _advance(entry, out, outcome, notify, start)
                if entry.process is None:
                    running.remove(entry)
            _skip(waiting, outcome, notify)
            finished = {*outcome.finished, *outcome.kept}
            for job in list(waiting):
                if len(running) < workers.parallel and all(
                    n in finished or n not in names for n in job.after
                ):
                    waiting.remove(job)
                    running.append(entry := _open(job, out))
                    _spawn(entry, start)
                    notify("started", job, "")
            if on_tick is not None:
                on_tick(running)
            if running:
                time.sleep(POLL)
    return outcome


def _end(running: Sequence[Running]) -> None:
    """End the processes: each saves what it has finished first."""
    end_children([entry.process for entry in running if entry.process is not None])
    for entry in running:
        entry.log.close()


def _skip(waiting: list[Job], outcome: Outcome, notify: OnEvent) -> None:
    """Take the jobs out of ``waiting`` that need one which failed or was skipped."""
    lost = {*outcome.failed, *outcome.skipped}
    for job in list(waiting):
        cause = next((name for name in job.after if name in lost), None)
        if cause is not None:
            waiting.remove(job)
            outcome.skipped[job.name] = cause
            lost.add(job.name)
            notify("skipped", job, f"{cause} failed")


def _open(job: Job, out: Path) -> Running:
    """The job with its log, before its first process: a process that starts must be known to ``_end``."""
    path = log_file(out, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: what a full disk has refused is not tried again when the file is closed.
    return Running(job, time.monotonic(), open(path, "ab", buffering=0))


def launch(
    command: Sequence[str], log: IO[bytes], inherited: InheritedDescriptors
) -> subprocess.Popen[bytes]:
    """The command in a fresh interpreter.

    It has a process group of its own, so that a Ctrl-C of the terminal reaches it through this process alone.
    """
    return subprocess.Popen(
        [*PROGRAM, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=inherited.environment,
        pass_fds=inherited.descriptors,
        process_group=0 if os.name == "posix" else None,
    )


def _spawn(entry: Running, start: Start) -> None:
    """Start the command that ``entry.number`` points to."""
    command = entry.job.commands[entry.number]
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    with naming(Path(entry.log.name)):
        entry.log.write(f"\n# {stamp}\n$ {command_line(command)}\n".encode())
    with deferred():  # a signal in between would leave a process that nobody knows
        entry.process = start(command, entry.log)


def _advance(entry: Running, out: Path, outcome: Outcome, notify: OnEvent, start: Start) -> None:
    """Poll the process. When it has ended, start the next command, or write the record.

    After the last command ``process`` is None.
    """
    assert entry.process is not None
    code = entry.process.poll()
    if code is None:
        return
    job = entry.job
    if code == 0 and entry.number + 1 < len(job.commands):
        entry.number += 1
        _spawn(entry, start)
        return
    entry.process = None
    entry.log.close()
    seconds = time.monotonic() - entry.begin
    before = read_record(out, job)
    record: Done = {
        "name": job.name,
        "status": "finished" if code == 0 else "failed",
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds + float(before.get("seconds") or 0.0), 1),  # over all attempts
        "attempts": int(before.get("attempts") or 0) + 1,
        "commands": [portable(out, command) for command in job.commands],
    }
    if code:
        command = command_line(job.commands[entry.number])
        reason = f"exit status {code}: {command}\n{_tail(log_file(out, job))}"
        record |= {"exit_status": code, "command": command}
        outcome.failed[job.name] = reason
    else:
        outcome.finished.append(job.name)
    write_json(record_file(out, job), record)
    notify("failed" if code else "finished", job, outcome.failed.get(job.name, f"{seconds:.0f} s"))


def _tail(path: Path) -> str:
    """The last lines of a log."""
    try:
        with open(path, "rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 20_000))
            lines = handle.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"(log cannot be read: {error})"
    return "\n".join(lines[-TAIL:])


def job_progress(job: Job) -> tuple[float, str]:
    """How far a running job is, 0..1, and a description; from the last line of its metrics."""
    row = last_row(job.folder / METRICS_FILE)
    iteration = int(_number(row.get("iteration")))
    if job.stage == "warm":
        return min(1.0, iteration / max(job.iterations, 1)), f"update {iteration}/{job.iterations}"
    if not job.iterations:
        return 0.5, "evaluating"
    steps = _number(row.get("env_steps"))
    share = max(iteration / job.iterations, steps / job.env_steps if job.env_steps else 0.0)
    text = f"iteration {iteration}, {steps / 1000:.0f}k steps"
    if isinstance(row.get("rollout/success"), float):
        text += f", success {row['rollout/success']:.3f}"
    return min(1.0, share), text if share < 1 else "evaluating"


def _number(value: Any) -> float:
    """A number of a row; 0 for anything else."""
    return float(value) if finite(value) else 0.0


def last_row(path: Path) -> dict[str, Any]:
    """The last whole line of a metrics file; empty where there is none."""
    try:
        with open(path, "rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 16_000))
            lines = handle.read().split(b"\n")[:-1]  # what follows the last newline is being written
    except OSError:
        return {}
    for line in reversed(lines):
        with suppress(DataError):
            return parse_object(line, constants=True)
    return {}
