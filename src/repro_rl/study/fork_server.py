"""A process that has imported what training needs, and forks for every command of a study.

The imports of a command take as long as an evaluation of a tiny model. On Linux alone, and without a GPU:
CUDA does not survive a fork.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NamedTuple

from repro_rl.errors import PreflightError
from repro_rl.interrupts import child

PAUSE = 0.1  # seconds between two looks at the processes
MODULES = (
    *("transformers.models.qwen3.modeling_qwen3", "repro_rl.train", "repro_rl.study.evaluate"),
    "repro_rl.cli.commands",
)
PROGRAM = "from repro_rl.cli import main; from repro_rl.study.fork_server import serve; serve({}, main)"


class Message(NamedTuple):
    """What the server tells."""

    kind: str  # "ready", "started" or "ended"
    pid: int = 0
    status: int = 0  # of a process that has ended: its exit status, or minus the number of a signal


def can_fork(devices: Iterable[str]) -> bool:
    """Whether commands with these ``policy.device`` can be forked on this machine."""
    if sys.platform != "linux":
        return False
    from repro_rl.dist.collectives import on_cpu  # imports torch

    return all(map(on_cpu, devices))


class ForkedProcess:
    """A command in a fork, with the methods of ``subprocess.Popen`` that a study uses."""

    def __init__(self, server: ForkServer, pid: int):
        self.pid, self._server = pid, server
        self.status: int | None = None  # when it has ended: its exit status, or minus the number of a signal

    def poll(self) -> int | None:
        """The exit status, or minus the number of a signal; None while it runs."""
        if self.status is None:
            self._server.read_messages()
        return self.status

    def wait(self, timeout: float | None = None) -> int:
        """As ``poll``, when it has ended. Raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(PAUSE / 5)
        return status

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and the server has not told yet
                os.kill(self.pid, number)


class ForkServer:
    """The side that asks for processes. Its methods raise PreflightError where the server has ended."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._running: dict[int, ForkedProcess] = {}  # by process id, which may be used again

    def wait_until_ready(self) -> None:
        """Wait for the end of the imports."""
        self._receive("ready")

    def start(self, command: Sequence[str], log: str) -> ForkedProcess:
        """A ``repro-rl`` command, its output appended to the file ``log``."""
        try:
            self._connection.send((list(command), log))
        except OSError as error:
            raise _lost() from error
        process = ForkedProcess(self, self._receive("started").pid)
        self._running[process.pid] = process
        return process

    def read_messages(self) -> None:
        """Learn which processes have ended."""
        while self._connection.poll():
            self._receive("ended")

    def _receive(self, kind: str) -> Message:
        """The next message of a kind; those before it that tell of an end are kept."""
        while True:
            try:
                message = Message(*self._connection.recv())
            except (EOFError, OSError) as error:
                raise _lost() from error
            if message.kind == "ended":
                self._running.pop(message.pid).status = message.status
            if message.kind == kind:
                return message


def _lost() -> PreflightError:
    return PreflightError(
        "The process that starts the runs of the study was lost: killed, or out of memory. What was finished "
        "is kept; repeat the command to continue."
    )


@contextmanager
def fork_server(environment: Mapping[str, str], descriptors: Sequence[int]) -> Iterator[ForkServer]:
    """A server whose processes have this environment and inherit these descriptors.

    Raises PreflightError where it ends in the course of its imports.
    """
    ours, theirs = Pipe()
    command = [sys.executable, "-c", PROGRAM.format(theirs.fileno())]
    with (
        ours,
        theirs,
        child(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no terminal, by which output would be coloured
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            pass_fds=[theirs.fileno(), *descriptors],
            process_group=0,
        ),
    ):
        theirs.close()  # else the end of the server would not be noticed
        server = ForkServer(ours)
        server.wait_until_ready()
        yield server


def serve(descriptor: int, main: Callable[[], object]) -> None:
    """The server's side, until the other side has ended; in each fork, the command that was asked for.

    ``main``: the command line, which takes its words from ``sys.argv``.
    """
    _import()
    request: tuple[list[str], str] | None = None
    with suppress(EOFError, OSError), Connection(descriptor) as connection:
        request = _fork_for_each(connection)
    if request is not None:
        _redirect(*request)
        main()


def _fork_for_each(connection: Connection) -> tuple[list[str], str]:
    """Tell the other side of forks and their ends. Returns in a fork alone: command and log file.

    Raises EOFError or OSError when the other side has ended.
    """
    connection.send(Message("ready"))
    running: set[int] = set()
    while True:
        if connection.poll(PAUSE):
            request: tuple[list[str], str] = connection.recv()
            pid = os.fork()
            if not pid:
                return request
            os.setpgid(pid, pid)  # as ``runner.launch``: a Ctrl-C of the terminal does not reach it
            running.add(pid)
            connection.send(Message("started", pid))
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                connection.send(Message("ended", pid, os.waitstatus_to_exitcode(status)))


def _import() -> None:
    """Import what the commands of a study need; a fork shares it."""
    for module in MODULES:
        with suppress(Exception):  # the command that needs it says what is wrong
            import_module(module)
    gc.freeze()


def _redirect(command: Sequence[str], log: str) -> None:
    """Give this process the words and the output of a fresh one."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.argv = ["repro-rl", *command]
