"""Ctrl-C and SIGTERM: raised at once, after what must not be cut, or at once when they are repeated."""

# ruff: noqa: PT012  (what follows on a signal inside a block is what is tested)

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from repro_rl import interrupts
from repro_rl.interrupts import (
    Interrupted,
    child,
    child_environment,
    child_pipe,
    deferred,
    end_children,
    handled,
    run_child,
)


def send(number: int) -> None:
    """To this process, whose handlers run before the call returns."""
    signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_with_its_number(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, handled():
        send(number)
    assert caught.value.number == number
    assert signal.getsignal(number) == before


def test_a_signal_waits_for_what_must_not_be_cut(capfd: pytest.CaptureFixture[str]) -> None:
    done = []
    with pytest.raises(Interrupted), handled():
        with deferred():
            with deferred():
                send(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]
    assert "finished and saved first" in capfd.readouterr().err


def test_the_second_one_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    with pytest.raises(Interrupted), handled(), deferred():
        send(signal.SIGINT)
        send(signal.SIGINT)  # the same request, which a launcher passes on
        done.append("first")
        monkeypatch.setattr(interrupts, "SAME_REQUEST", 0.0)
        send(signal.SIGINT)
        done.append("never")
    assert done == ["first"]


def test_an_error_inside_comes_first() -> None:
    with pytest.raises(OSError, match="full"), handled(), deferred():
        send(signal.SIGINT)
        raise OSError("full")


def test_a_swallowed_interruption_is_raised_again() -> None:
    with pytest.raises(Interrupted), handled():
        with suppress(KeyboardInterrupt):  # as a library does in a callback
            send(signal.SIGINT)
        with deferred():
            pytest.fail("the work went on")


def test_an_interruption_that_python_drops_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    class Group:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    before = sys.unraisablehook
    with pytest.raises(Interrupted) as caught, handled():
        group = Group()
        del group
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)
    assert caught.value.number == signal.SIGTERM
    assert sys.unraisablehook is before
    assert "Traceback" not in capfd.readouterr().err


def test_one_that_arrives_while_python_drops_another_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer to start the thread than the thread waits."""

    class Slow(threading.Thread):
        def start(self) -> None:
            super().start()
            send(signal.SIGTERM)
            time.sleep(3 * interrupts.RESEND_SECONDS)

    class Group:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    monkeypatch.setattr(threading, "Thread", Slow)
    with pytest.raises(Interrupted), handled():
        group = Group()
        del group
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)


def test_one_that_python_dropped_is_raised_at_the_end_and_never_sent_to_the_next_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next block may handle other signals: SIGTERM would end the process there."""

    class Group:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    monkeypatch.setattr(interrupts, "RESEND_SECONDS", 0.2)
    outside: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: outside.append(number))
    try:
        with pytest.raises(Interrupted) as caught, handled():
            group = Group()
            del group
        with handled((signal.SIGINT,)):
            time.sleep(0.6)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.number == signal.SIGTERM
    assert outside == []


def test_ctrl_c_is_deferred_where_nobody_handles_signals() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), deferred():
            send(signal.SIGINT)
            done.append(1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [1]


def test_an_ignored_signal_stays_ignored_and_threads_do_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with handled():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    inside = []

    def work() -> None:
        with handled(), deferred():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [signal.getsignal(signal.SIGTERM)]


CHILD = """
import time
from repro_rl.interrupts import end_with_parent
end_with_parent()
print("watches", flush=True)
time.sleep(60)
"""


def test_a_child_ends_when_the_pipe_of_its_parent_is_closed() -> None:
    with child_pipe() as pipe:
        assert pipe is not None
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            pass_fds=[pipe],
            env={**os.environ, **child_environment(pipe)},
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"watches\n"
        time.sleep(0.2)
        assert child.poll() is None
    assert child.wait(60) == -signal.SIGTERM


def test_a_child_that_does_not_end_is_killed() -> None:
    waits = "import signal, time; print(1, flush=True); time.sleep(60)"
    stubborn = waits.replace("print", "signal.signal(signal.SIGTERM, signal.SIG_IGN); print")
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for code in (stubborn, waits)
    ]
    for process in children:
        assert process.stdout is not None
        process.stdout.readline()
    end_children(children, grace=0.2)
    assert [process.returncode for process in children] == [-signal.SIGKILL, -signal.SIGTERM]


def test_a_command_is_run_to_its_end() -> None:
    assert run_child([sys.executable, "-c", "raise SystemExit(3)"]) == 3


WAITS = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


class Signalled(subprocess.Popen[bytes]):
    """A process in whose start a signal arrives."""

    started: list[subprocess.Popen[bytes]] = []  # noqa: RUF012

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.started.append(self)
        send(signal.SIGTERM)


def test_a_child_that_starts_as_a_signal_arrives_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception out of Popen's constructor would lose the process."""
    monkeypatch.setattr(subprocess, "Popen", Signalled)
    monkeypatch.setattr(Signalled, "started", [])
    with pytest.raises(Interrupted), handled():
        run_child(WAITS)
    assert [process.returncode for process in Signalled.started] == [-signal.SIGTERM]


def test_a_child_is_ended_with_its_block_and_its_pipes_are_closed() -> None:
    with pytest.raises(Interrupted), handled(), child(WAITS, stdin=subprocess.PIPE) as process:
        send(signal.SIGINT)
    assert process.returncode == -signal.SIGTERM
    assert process.stdin is not None
    assert process.stdin.closed


def test_a_second_signal_while_children_are_ended_kills_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient(subprocess.Popen[bytes]):
        def terminate(self) -> None:
            send(signal.SIGTERM)

    monkeypatch.setattr(interrupts, "SAME_REQUEST", 0.0)
    children = [Impatient(WAITS), subprocess.Popen(WAITS)]
    with pytest.raises(Interrupted), handled():
        end_children(children)
    assert [process.returncode for process in children] == [-signal.SIGKILL] * 2
