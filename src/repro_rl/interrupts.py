"""Ctrl-C, SIGTERM and a closed terminal: raised as KeyboardInterrupt, but not in the middle of an update.

What must not be cut in two (an optimizer step with its row of metrics, a checkpoint) runs inside
``deferred()``. A signal that arrives there is raised when the block is done; a second one ends it at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import CodeType, FrameType
from typing import Any, Protocol

# SIGHUP: the terminal was closed. Windows has none.
END_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
PARENT = "REPRO_RL_PARENT_FD"  # a pipe that its writer holds open as long as it lives
# One Ctrl-C may arrive several times: from the terminal, from a launcher, from a parent.
SAME_REQUEST = 1.0  # seconds
RESEND_SECONDS = 0.02  # until a signal that Python has dropped comes again; repeated until it is received
GRACE = 60.0  # seconds that a child has to end after SIGTERM: an update and a checkpoint


class Interrupted(KeyboardInterrupt):
    """The process was asked to end. ``number``: of the signal."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(slots=True)
class _State:
    """Of this process."""

    received: int | None = None  # number of the first signal that asked for the end
    at: float = 0.0  # when, time.monotonic()
    handled: int = 0  # signals
    depth: int = 0  # of blocks inside ``deferred``
    handling: bool = False  # whether ``_receive`` is the handler
    blocks: int = 0  # of ``handled`` that have begun
    dropped: int | None = None  # number of a signal whose exception Python dropped, until it comes again


_state = _State()


def received() -> int | None:
    """The number of the signal that asked this process to end; None: none did."""
    return _state.received


@contextmanager
def handled(signals: Sequence[int] = END_SIGNALS) -> Iterator[None]:
    """Inside, ``signals`` raise Interrupted. One that the process ignores (nohup) stays ignored.

    One that Python dropped and that has not come again is raised at the end of the block.
    Does nothing outside the main thread, which alone receives signals.
    """
    if threading.current_thread() is not threading.main_thread() or _state.handling:
        yield
        return
    before = {}
    for number in signals:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, _receive)
    _state.handling, _state.received, _state.dropped = True, None, None
    _state.blocks += 1
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_repeat_swallowed, otherwise=hook)
    try:
        yield
        if _state.dropped is not None:
            raise Interrupted(_state.dropped)
    finally:
        _state.handling, sys.unraisablehook = False, hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that arrives inside is raised at the end of the block, or at once when it is repeated.

    One that came before is raised at the beginning, in case a library has swallowed it. An exception of the
    block itself comes first. Where nobody handles signals, Ctrl-C alone is deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled((signal.SIGINT,)):
        raise_if_received()
        _state.depth += 1
        try:
            yield
        finally:
            _state.depth -= 1
        if not _state.depth:
            raise_if_received()


def raise_if_received() -> None:
    """Raises Interrupted once more where a library has swallowed it."""
    if _state.handling and _state.received is not None:
        raise Interrupted(_state.received)


def _receive(number: int, frame: FrameType | None) -> None:
    """The handler of a signal that asks for the end."""
    if _is_inside(_repeat_swallowed.__code__, frame):  # Python would drop it once more; it comes again
        _state.handled += 1
        return
    again = _state.received is not None
    if again and time.monotonic() - _state.at < SAME_REQUEST:
        return
    _state.received, _state.at = _state.received or number, time.monotonic()
    _state.dropped = None
    _state.handled += 1
    if _state.depth and not again:
        with suppress(OSError, ValueError):
            text = "Interrupted: what is under way is finished and saved first. Once more ends it at once.\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
        return
    raise Interrupted(number)


def _repeat_swallowed(problem: Any, otherwise: Callable[[Any], object]) -> None:
    """A signal that arrived in a ``__del__`` or a callback, where Python drops exceptions, comes again.

    ``problem``: what ``sys.unraisablehook`` is given; ``otherwise``: called with other exceptions.
    """
    if not isinstance(problem.exc_value, Interrupted):
        otherwise(problem)
        return
    number = problem.exc_value.number
    _state.received, _state.dropped = None, number
    threading.Thread(target=_send_until_received, args=(number, _state.blocks), daemon=True).start()


def _send_until_received(number: int, block: int) -> None:
    """``block``: which one of ``handled`` the signal is for; the next may leave its handler as it was."""

    def inside() -> bool:
        return _state.handling and _state.blocks == block

    while True:
        time.sleep(RESEND_SECONDS)
        before = _state.handled
        if not inside() or _state.received is not None:
            return
        os.kill(os.getpid(), number)
        while inside() and _state.handled == before:  # one more might come after the handlers are gone
            time.sleep(RESEND_SECONDS / 10)


def _is_inside(code: CodeType, frame: FrameType | None) -> bool:
    """Whether ``frame`` or one of its callers runs ``code``."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


# Processes that are started here ----------------------------------------------------------------------


@contextmanager
def child_pipe() -> Iterator[int | None]:
    """A descriptor to hand to children, who end when this process is gone (see ``end_with_parent``).

    None where descriptors cannot be handed on (Windows).
    """
    if os.name != "posix":
        yield None
        return
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def child_environment(pipe: int | None) -> dict[str, str]:
    """The environment variables that tell a child about the pipe."""
    return {} if pipe is None else {PARENT: str(pipe)}


def end_with_parent() -> None:
    """In a child: receive SIGTERM when the process that started it has ended, however it ended."""
    text = os.environ.pop(PARENT, "")
    if not text.isdigit() or os.name != "posix":
        return

    def wait() -> None:
        with suppress(OSError):
            os.read(int(text), 1)  # returns when the other end is closed; nothing is ever written
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()


class ChildProcess(Protocol):
    """What ``subprocess.Popen`` and a fork have in common."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def end_children(processes: Sequence[ChildProcess], grace: float = GRACE) -> None:
    """Terminate, wait up to ``grace`` seconds, then kill; a second Ctrl-C kills at once."""
    deadline = time.monotonic() + grace
    try:
        for process in processes:
            with suppress(OSError):
                process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
    finally:
        left = [process for process in processes if process.poll() is None]
        for process in left:
            process.kill()
        for process in left:
            process.wait()


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process, with the ``options`` of Popen; where it still runs at the end of the block, it is ended."""
    process = None
    try:
        with deferred():  # a signal inside Popen would leave a process that nobody knows
            process = subprocess.Popen(command, **options)
        yield process
    finally:
        if process is not None:
            if process.poll() is None:
                end_children([process])
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()


def run_child(command: Sequence[str], **options: Any) -> int:
    """Run a command to its end and return its exit status; it ends when this process is asked to end."""
    with child(command, **options) as process:
        return process.wait()
