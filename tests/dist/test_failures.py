"""One of two ranks fails: the other ends with its reason."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from repro_rl.dist.failures import RankMonitor
from repro_rl.errors import RankLostError
from support.rank_runs import RUN, in_two


def test_a_process_that_is_gone_is_found():
    process = subprocess.Popen([sys.executable, "-c", ""])
    monitor = RankMonitor(0, 1.0)
    monitor.processes = [
        RankMonitor.own_process(),
        (socket.gethostname(), process.pid),
        ("elsewhere", process.pid),
    ]
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the table of processes
    lost = r"Process 1 was lost: killed.*Repeat the same command"
    with pytest.raises(RankLostError, match=lost), monitor.watch():
        raise RuntimeError("Connection closed by peer")
    process.wait()
    reason = monitor.find_failed_rank(0.0)  # also when it has left the table; rank 2 is on another machine
    assert reason is not None
    assert reason.startswith("Process 1 was lost")
    monitor.processes = [monitor.processes[0], monitor.processes[0], monitor.processes[2]]
    assert monitor.find_failed_rank(0.0) is None


ENDS = """
import atexit, sys, threading, time
from repro_rl.dist.failures import rank_process
class Late:
    def __del__(self): print("torn down")  # what the interpreter would do to the threads of a collective
atexit.register(print, "registered")
late = Late()
with rank_process({world}):
    threading.Thread(target=lambda: (time.sleep({delay}), print("joined"))).start()
    {work}
print("after")
"""


@pytest.mark.parametrize(
    ("world", "work", "code", "out", "err"),
    [
        (2, "pass", 0, ["joined", "registered"], ""),
        (1, "pass", 0, ["after", "joined", "registered", "torn down"], ""),
        (2, "sys.exit(3)", 3, ["registered"], ""),
        (2, "sys.exit('no room')", 1, ["registered"], "no room\n"),
        (2, "1 / 0", 1, ["registered"], "ZeroDivisionError: division by zero\n"),
    ],
)
def test_a_rank_ends_without_a_teardown(world, work, code, out, err):
    """Gloo's threads may abort a process that tears itself down (exit code -6), also after success."""
    delay = 60 if code else 0.2  # after a failure, a thread is not waited for
    program = ENDS.format(world=world, work=work, delay=delay)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (code, out), done.stderr
    assert done.stderr.endswith(err)
    assert bool(done.stderr) == bool(err)


@pytest.mark.slow
def test_a_process_that_raises_ends_the_other_with_its_message(warm, tmp_path):
    plan = tmp_path / "plan.json"
    config = [*warm.settings, *RUN, f"train.init={warm.run}"]
    stage = {"what": "train", "settings": config, "out": str(tmp_path / "run")}
    plan.write_text(json.dumps({"stages": [stage], "fail": [1, 1, "raise"]}))
    (code, message), (other, reason) = in_two(plan)
    assert (code, other) == (2, 1), (message, reason)
    assert "RuntimeError: boom" in reason
    assert "process 0: RankLostError: Process 1 failed (RuntimeError: boom)." in message
    assert "Repeat the same command" in message


@pytest.mark.slow
def test_waiting_has_an_end(tmp_path):
    plan = tmp_path / "plan.json"
    stage = {
        "what": "wait",
        "settings": ["policy.device=cpu", "train.peer_timeout=1234"],
        "out": str(tmp_path / "note"),
    }
    plan.write_text(json.dumps({"stages": [stage]}))
    (code, message), (other, _) = in_two(plan)
    assert (code, other) == (2, 0), message
    assert "waits 0:20:34\n" in message
    assert "did not come to the same point within train.peer_timeout=1234 seconds" in message


@pytest.fixture
def ended(monkeypatch):
    """What a monitor did at its end, in this process: whom it called, and its exit status."""
    done = []
    monkeypatch.setattr("repro_rl.dist.failures.os._exit", done.append)
    monkeypatch.setattr(RankMonitor, "find_failed_rank", lambda self: None)
    return done


def test_what_is_to_be_done_at_the_end_is_done_once(ended, capsys):
    monitor = RankMonitor(1, 1.0)
    monitor.before_end = lambda: ended.append("saved")
    monitor._terminated(15, None)
    monitor._terminated(15, None)  # it is ending already
    assert ended == ["saved", 143]
    assert "process 1: The launcher ended this process (SIGTERM)." in capsys.readouterr().err

    def fails():
        raise OSError("disk full")

    other = RankMonitor(0, 1.0)
    other.before_end = fails
    other._terminated(15, None)
    assert ended == ["saved", 143, 143]


def test_an_end_waits_for_what_is_being_written(ended):
    monitor = RankMonitor(0, 1.0)
    monitor.before_end = lambda: ended.append("saved")
    with monitor.defer_termination():
        monitor._terminated(15, None)
        ended.append("written")
    assert ended == ["written", "saved", 143]
