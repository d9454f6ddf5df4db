"""Commands in forks of one process that has imported what they need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from repro_rl.errors import PreflightError
from repro_rl.interrupts import child_pipe
from repro_rl.study import runner
from repro_rl.study.fork_server import ForkServer, can_fork, fork_server
from repro_rl.study.jobs import Job
from support.rank_runs import RUN
from support.small import WarmStart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
CPU = frozenset({"cpu"})
LONG = ("demos", "-c", "sokoban-tiny", "demos.expert=100000")  # ends when it is told to


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with child_pipe() as pipe:
        inherited = runner.InheritedDescriptors(None, pipe)
        with fork_server(inherited.environment, inherited.descriptors) as found:
            yield found


def field(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}:")).split()[1]


def until_it_handles(pid: int, number: int) -> None:
    """Wait until the command handles a signal: before, it just ends by it."""
    while not int(field(pid, "SigCgt"), 16) >> (number - 1) & 1:
        time.sleep(0.02)


def test_a_fork_is_what_a_process_would_be(server: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("before\n")
    wrong = server.start(("play", "nowhere"), str(log))
    with pytest.raises(subprocess.TimeoutExpired):
        wrong.wait(timeout=0)
    assert os.getpgid(wrong.pid) == wrong.pid
    assert wrong.wait() == 2
    fresh = tmp_path / "b.log"
    with open(fresh, "wb") as file:
        runner.launch(("play", "nowhere"), file, runner.InheritedDescriptors(None, None)).wait()
    assert log.read_bytes() == b"before\n" + fresh.read_bytes()
    wrong.terminate()  # nobody has its number any more
    assert (wrong.poll(), wrong.wait()) == (2, 2)


def test_a_fork_ends_when_it_is_told_to(server: ForkServer, tmp_path: Path) -> None:
    first, second = (
        server.start((*LONG, "-o", str(tmp_path / name)), str(tmp_path / f"{name}.log")) for name in "ab"
    )
    until_it_handles(first.pid, signal.SIGTERM)
    assert first.poll() is None
    first.terminate()
    second.kill()
    assert first.wait(timeout=30) == 128 + signal.SIGTERM
    assert second.wait(timeout=30) == -signal.SIGKILL
    assert "Ended by a signal" in (tmp_path / "a.log").read_text()


@pytest.mark.slow
def test_a_fork_trains_to_the_same_weights(server: ForkServer, warm: WarmStart, tmp_path: Path) -> None:
    """Bit for bit, also for a second fork of the same server."""
    train = [
        "train",
        "-c",
        "sokoban-tiny",
        *warm.settings,
        *RUN,
        f"train.init={warm.run}",
        "train.iterations=1",
    ]
    forks = [
        server.start((*train, "-o", str(tmp_path / name)), str(tmp_path / f"{name}.log")) for name in "ab"
    ]
    with open(tmp_path / "fresh.log", "wb") as log:
        fresh = runner.launch(
            (*train, "-o", str(tmp_path / "fresh")), log, runner.InheritedDescriptors(None, None)
        )
        assert fresh.wait() == 0, (tmp_path / "fresh.log").read_text()
    assert [fork.wait() for fork in forks] == [0, 0], (tmp_path / "a.log").read_text()
    weights = Path("checkpoints", "00001", "model.safetensors")
    for name in "ab":
        assert (tmp_path / name / weights).read_bytes() == (tmp_path / "fresh" / weights).read_bytes()


def test_a_study_runs_in_forks(tmp_path: Path) -> None:
    jobs = [
        Job("bad", "final", "arm", 0, tmp_path / "bad", (("--help",), ("play", "nowhere"), ("--help",))),
        Job("after", "final", "arm", 0, tmp_path / "after", (("--help",),), ("bad",)),
        Job("good", "final", "arm", 0, tmp_path / "good", (("--help",), ("--help",))),
    ]
    with runner.locked(tmp_path) as lock:
        outcome = runner.run_jobs(jobs, tmp_path, runner.Workers(2, lock, CPU))
    assert outcome.finished == ["good"]
    assert "Unknown environment 'nowhere'" in outcome.failed["bad"]
    assert outcome.skipped == {"after": "bad"}
    log = runner.log_file(tmp_path, jobs[2]).read_text()
    assert log.count("Usage: repro-rl [OPTIONS] COMMAND") == 2
    assert "\x1b" not in log
    assert runner.run_jobs(jobs[2:], tmp_path, runner.Workers(devices=CPU)).kept == ["good"]


def test_forks_end_with_the_process_that_asked_for_them(tmp_path: Path) -> None:
    """Killed, it can end nothing itself: the forks see the end of its pipe, the server of its connection."""
    script = """
import sys, time
from pathlib import Path
from repro_rl.study import runner
from repro_rl.study.jobs import Job
out, command = Path(sys.argv[1]), tuple(sys.argv[2:])
show = lambda running: print(*[entry.process.pid for entry in running], flush=True)
job = Job("a", "final", "arm", 0, out / "a", (command,))
runner.run_jobs([job], out, runner.Workers(devices=frozenset({"cpu"})), on_tick=show)
"""
    command = [sys.executable, "-c", script, str(tmp_path), *LONG, "-o", str(tmp_path / "demos")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        server = int(field(pid, "PPid"))
        process.kill()
    for number in (pid, server):
        wait_until_gone(number)


def wait_until_gone(pid: int) -> None:
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"{pid} still runs")


def test_a_server_that_is_lost_is_named(tmp_path: Path) -> None:
    def kill(running: Sequence[runner.Running]) -> None:
        for entry in running:
            assert entry.process is not None
            os.kill(int(field(entry.process.pid, "PPid")), signal.SIGKILL)

    job = Job("a", "final", "arm", 0, tmp_path / "a", ((*LONG, "-o", str(tmp_path / "demos")),))
    with pytest.raises(PreflightError, match="that starts the runs of the study was lost"):
        runner.run_jobs([job], tmp_path, runner.Workers(devices=CPU), on_tick=kill)


def test_gpus_do_not_survive_a_fork() -> None:
    assert can_fork(["cpu", "cpu"])
    assert not can_fork(["cpu", "cuda"])
    assert not can_fork(["mps"])
