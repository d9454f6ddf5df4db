"""When one of several ranks fails: the others end at once, and say which one it was.

A rank that raises leaves a note in the store that the launcher keeps. One that was killed leaves none, but
its process id is gone. A waiting rank notices either by its broken connection, or by the launcher's SIGTERM.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from repro_rl.errors import RankLostError, ReproError, visible

PATIENCE = 10.0  # seconds in which a broken connection is expected to show which rank broke it
REPEAT = (
    "Repeat the same command to continue from the last checkpoint; the number of processes may be another."
)


class RankMonitor:
    """The processes of a run by rank: notes on their failures, and who is gone."""

    def __init__(self, rank: int, timeout: float):
        self.rank, self.timeout = rank, timeout
        self.processes: list[tuple[str, int]] = []  # (machine, process id) by rank
        self.ending = False  # this process is about to end and has reported why
        self._deferring, self._deferred = False, 0  # the number of a signal that waits
        self.before_end: Callable[[], object] | None = None  # called when the launcher ends this process

    @staticmethod
    def own_process() -> tuple[str, int]:
        """Machine and process id of this process."""
        return socket.gethostname(), os.getpid()

    def start(self, processes: Sequence[tuple[str, int]]) -> None:
        """Learn every rank's process, and from now on explain an end by the launcher's SIGTERM."""
        self.processes = list(processes)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._terminated)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """An exception inside is noted for the other ranks, then raised as it is.

        Unless it only shows that another process is gone: then RankLostError names that one.
        """
        try:
            yield
        except RankLostError:
            raise
        except BaseException as error:
            if not self.ending:
                self.ending = True
                if isinstance(error, RuntimeError) and not isinstance(error, ReproError):
                    # Backends raise RuntimeError for everything; their texts differ in capitals.
                    broken = any(word in str(error) for word in ("onnection", "gloo", "NCCL"))
                    if (reason := self.find_failed_rank(PATIENCE if broken else 0.0)) is not None:
                        self._leave_note("survivor")
                        raise RankLostError(f"{reason} {REPEAT}") from error
                self._leave_note(f"failed: {type(error).__name__}: {_first_line(error)}")
            raise

    @contextlib.contextmanager
    def defer_termination(self) -> Iterator[None]:
        """SIGTERM waits until what is inside is done; torchrun gives 30 seconds."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
            if self._deferred:
                self._terminated(self._deferred, None)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """A broken connection inside is raised as RankLostError, naming the process that was lost."""
        try:
            yield
        except RuntimeError as error:  # what torch.distributed raises for everything
            self.ending = True
            late = "imed out" in str(error) or "imeout" in str(error)
            reason = self.find_failed_rank(0.0 if late else PATIENCE) or _unexplained(
                error, self.timeout if late else None
            )
            self._leave_note("survivor")
            raise RankLostError(f"{reason} {REPEAT}") from error

    def find_failed_rank(self, patience: float = PATIENCE) -> str | None:
        """Which process failed or is gone, in a sentence; None when none can be named so soon."""
        deadline = time.monotonic() + patience
        while True:
            notes = {rank: self._note(rank) for rank in range(len(self.processes)) if rank != self.rank}
            for rank, note in notes.items():
                if note is not None and note.startswith("failed: "):
                    return f"Process {rank} failed ({note.removeprefix('failed: ')})."
            gone = [rank for rank, note in notes.items() if note is None and self._is_gone(rank)]
            if gone:
                named = f"es {', '.join(map(str, gone))} were" if len(gone) > 1 else f" {gone[0]} was"
                return f"Process{named} lost: killed, out of memory, or crashed without a message."
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)

    def _terminated(self, number: int, frame: Any) -> None:
        """SIGTERM: torchrun sends it to the rest when one process has failed."""
        if self.ending:
            return  # an error is being reported already
        if self._deferring:
            self._deferred = number
            return
        self.ending = True
        reason = self.find_failed_rank() or "The launcher ended this process (SIGTERM)."
        self._leave_note("survivor")
        if self.before_end is not None:
            with contextlib.suppress(Exception):  # what it raises is less important than the reason
                self.before_end()
        print(visible(f"process {self.rank}: {reason} {REPEAT}"), file=sys.stderr, flush=True)
        os._exit(128 + number)  # as SIGTERM would: half-written files have temporary names

    def _is_gone(self, rank: int) -> bool:
        """Whether a process of this machine no longer runs; False for one of another machine."""
        machine, pid = self.processes[rank]
        if machine != socket.gethostname() or os.name != "posix":
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        try:
            with open(
                f"/proc/{pid}/stat", encoding="utf-8", errors="replace"
            ) as handle:  # dead, but its parent has not looked yet
                return handle.read().rpartition(")")[2].split()[0] == "Z"
        except (OSError, IndexError):
            return False

    def _note(self, rank: int) -> str | None:
        with contextlib.suppress(Exception):  # the store may have died with its process
            store = _store()
            if store.check([_key(rank)]):
                return str(store.get(_key(rank)).decode())
        return None

    def _leave_note(self, note: str) -> None:
        with contextlib.suppress(Exception):
            _store().set(_key(self.rank), note)


def exit_status(ended: SystemExit) -> int:
    """The exit status that the interpreter would give a process that ends so."""
    return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1


@contextlib.contextmanager
def rank_process(world: int) -> Iterator[None]:
    """The whole work of a process, one of ``world``; of several, none lets the interpreter tear itself down.

    Threads of gloo and NCCL outlive the last collective. One that frees a tensor while the interpreter ends
    aborts the process (SIGABRT: "terminate called without an active exception"). It happens after a failure
    and, rarely, after success. Functions registered with ``atexit`` are called; after success, threads are
    joined first.
    """
    if world == 1:
        yield
        return
    status = 0
    try:
        yield
    except SystemExit as ended:
        status = exit_status(ended)
        if status and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if not status:
        threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter: joins what is no daemon
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


def _unexplained(error: RuntimeError, timeout: float | None) -> str:
    """The message when no rank left a note; ``timeout``: the seconds that were waited in vain."""
    if timeout is not None:
        return (
            f"Another process did not come to the same point within train.peer_timeout={timeout:g} seconds; "
            "raise it if that process was only slow."
        )
    return f"Another process of this run was lost ({_first_line(error) or type(error).__name__})."


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _key(rank: int) -> str:
    return f"repro_rl/end/{rank}"


def _store() -> Any:
    import torch.distributed as dist

    return dist.distributed_c10d._get_default_store()
