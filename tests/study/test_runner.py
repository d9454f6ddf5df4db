"""Jobs as processes: failures, interruptions, logs, the lock of a folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest

from repro_rl.interrupts import Interrupted, handled
from repro_rl.study import runner
from repro_rl.study.jobs import Job
from support.forked import Forked

HELP, WRONG = ("--help",), ("play", "nowhere")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "launch", lambda command, log, lock: Forked(command, log))
    monkeypatch.setattr(runner, "POLL", 0.02)


def quick(name: str, out: Path, *commands: tuple[str, ...], after: tuple[str, ...] = ()) -> Job:
    return Job(name, "final", "arm", 0, out / name, commands, after)


@pytest.mark.usefixtures("forked")
def test_what_follows_a_failure_is_skipped_and_the_rest_runs(tmp_path):
    jobs = [
        quick("bad", tmp_path, HELP, WRONG, HELP),
        quick("child", tmp_path, HELP, after=("bad",)),
        quick("grandchild", tmp_path, HELP, after=("child",)),
        quick("other", tmp_path, HELP, HELP),
    ]
    seen: list[tuple[str, str]] = []
    outcome = runner.run_jobs(
        jobs, tmp_path, runner.Workers(2), on_event=lambda kind, job, _: seen.append((kind, job.name))
    )
    assert outcome.finished == ["other"]
    assert list(outcome.failed) == ["bad"]
    assert "exit status 2: repro-rl play nowhere" in outcome.failed["bad"]
    assert "Unknown environment 'nowhere'" in outcome.failed["bad"]
    assert outcome.skipped == {"child": "bad", "grandchild": "child"}
    assert ("skipped", "grandchild") in seen
    assert (
        runner.log_file(tmp_path, jobs[0]).read_text().count("$ repro-rl") == 2
    )  # nothing after the failure
    # Repeated: the failed one is tried again, the finished one is kept.
    outcome = runner.run_jobs(jobs, tmp_path)
    assert outcome.kept == ["other"]
    assert runner.read_record(tmp_path, jobs[0])["attempts"] == 2
    # Other commands are another job.
    changed = quick("other", tmp_path, HELP)
    assert runner.run_jobs([changed], tmp_path).finished == ["other"]


@pytest.mark.usefixtures("forked")
def test_an_interruption_ends_the_processes_and_keeps_what_is_finished(tmp_path, monkeypatch):
    jobs = [quick(name, tmp_path, HELP) for name in "abc"]
    pids: list[int] = []

    def stop(running: Sequence[runner.Running]) -> None:
        pids.extend(entry.process.pid for entry in running if entry.process is not None)
        if runner.is_finished(tmp_path, jobs[0]) and running:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run_jobs(jobs, tmp_path, on_tick=stop)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    outcome = runner.run_jobs(jobs, tmp_path)
    assert outcome.kept[0] == "a"
    assert outcome.kept + outcome.finished == ["a", "b", "c"]


@pytest.mark.parametrize("number", [0, 1], ids=["first command", "second command"])
def test_a_process_that_starts_as_a_signal_arrives_is_ended(tmp_path, monkeypatch, number):
    """The signal comes when the process is there and nobody has it yet, as inside Popen."""
    started: list[subprocess.Popen[bytes]] = []

    def launch(
        command: Sequence[str], log: IO[bytes], inherited: runner.InheritedDescriptors
    ) -> subprocess.Popen[bytes]:
        last = len(started) == number
        code = "import time; time.sleep(60)" if last else "pass"
        started.append(subprocess.Popen([sys.executable, "-S", "-c", code]))
        if last:
            signal.raise_signal(signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr(runner, "launch", launch)
    with pytest.raises(Interrupted), handled():
        runner.run_jobs([quick("a", tmp_path, HELP, HELP, HELP)], tmp_path)
    assert [process.returncode for process in started] == [0] * number + [-signal.SIGTERM]


def test_a_real_process_writes_its_log_and_a_folder_has_one_owner(tmp_path):
    with runner.locked(tmp_path) as lock:
        outcome = runner.run_jobs([quick("a", tmp_path, HELP)], tmp_path, runner.Workers(lock=lock))
        assert outcome.finished == ["a"]
        assert "repro-rl" in runner.log_file(tmp_path, quick("a", tmp_path)).read_text()
        script = "import sys; from pathlib import Path; from repro_rl.study.runner import locked\n"
        script += "with locked(Path(sys.argv[1])): pass"
        other = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert other.returncode == 1
        assert "PreflightError: Another comparison" in other.stderr
    with runner.locked(tmp_path):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.usefixtures("forked")
def test_a_log_that_cannot_be_written_is_named(tmp_path):
    job = quick("a", tmp_path, HELP)
    log = runner.log_file(tmp_path, job)
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"a\.log") as caught:
        runner.run_jobs([job], tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(log))


def test_progress_is_read_from_the_last_whole_line(tmp_path):
    job = Job("a", "final", "repro", 0, tmp_path, (), (), 1000, 10)
    assert runner.job_progress(job)[0] == 0.0
    (tmp_path / "metrics.jsonl").write_text(
        '{"iteration": 3, "env_steps": 450, "rollout/success": 0.25}\n{"iteration": 4, "env'
    )
    assert runner.job_progress(job) == (0.45, "iteration 3, 0k steps, success 0.250")
