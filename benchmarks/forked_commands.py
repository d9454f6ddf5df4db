"""Commands of the package in forks of this process, and faults at the changes of a folder (POSIX only)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from repro_rl import interrupts
from repro_rl.cli import main
from repro_rl.study import runner

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
REMOVALS = ("os.remove", "os.rmdir")  # a full disk allows them
Fault = Callable[[str], None]  # called at each change of the folder; may raise, or not return


def run_command(
    folder: Path,
    arguments: list[str],
    prepare: Callable[[], None] | None = None,
    *,
    after: float | None = None,
    number: int = 0,
    log: Path | None = None,
) -> tuple[int, str]:
    """Exit status and all that a command printed; after ``after`` seconds it gets the signal ``number``."""
    log = log or folder.parent / "log"
    pid = _fork(folder, arguments, log, prepare)
    if after is not None:
        deadline = time.monotonic() + after
        while time.monotonic() < deadline and _running(pid):
            time.sleep(0.002)
        with suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = _members(pid)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if left and code >= 0:
        text = f"children were left behind by {arguments}: {left}: {log.read_text(errors='replace')}"
        return 99, text
    return code, log.read_text(errors="replace")


def _members(group: int) -> list[str]:
    """The processes of a group that run: not those that have ended and that nobody has waited for yet."""
    if not os.path.exists("/proc/self/stat"):
        with suppress(ProcessLookupError):
            os.killpg(group, 0)
            return [f"process group {group}"]
        return []
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # of a process that ends meanwhile
            if folder.name.isdigit():
                name, _, rest = (folder / "stat").read_text().rpartition(")")
                state, _, number = rest.split()[:3]
                if int(number) == group and state not in "ZX":
                    found.append(f"{name}) {state}")
    return found


def _running(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _fork(folder: Path, arguments: list[str], log: Path, prepare: Callable[[], None] | None) -> int:
    """A command in a copy of this process, which leads a process group; jobs of a study are copies too."""
    sys.stdout.flush()

    def command() -> int:
        os.setpgid(0, 0)
        os.chdir(folder)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        runner.launch, runner.POLL = lambda command, log, handed: _Job(command, log), 0.02  # type: ignore
        if prepare is not None:
            prepare()
        return _main(arguments)

    return _forked(command)


def _forked(command: Callable[[], int]) -> int:
    """The id of a copy of this process, which ends with the exit status that ``command`` returns."""
    # A signal before the copy has handlers of its own must wait: it would end as this process does.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.END_SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    code = 1
    try:
        for name in interrupts.END_SIGNALS:
            signal.signal(name, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = command()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(arguments: list[str]) -> int:
    """The command in this process; what escapes is printed as Python prints it."""
    sys.argv = ["repro-rl", *arguments]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


class _Job:
    """A job of a study: what ``subprocess.Popen`` is for a command."""

    def __init__(self, command: Any, log: Any):
        self.returncode: int | None = None

        def job() -> int:
            interrupts._state = interrupts._State()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            return _main(list(command))

        self.pid = _forked(job)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("job", timeout or 0)
            time.sleep(0.01)
        return code


# Faults -----------------------------------------------------------------------------------------------


def watching(folder: Path, fault: Fault) -> Callable[[], None]:
    """Install ``fault``: it is called before every change of a file in or beside ``folder``."""
    names = (str(folder), str(folder.parent / f".{folder.name}."))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not (
            isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            return
        if event in CHANGES or event == "open":
            path = arguments[0]
            if isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(names):
                fault(event)

    def install() -> None:
        sync = os.fsync

        def fsync(handle: int) -> None:
            if os.readlink(f"/proc/self/fd/{handle}").startswith(names) if sys.platform == "linux" else True:
                fault("fsync")
            sync(handle)

        os.fsync = fsync
        sys.addaudithook(hook)

    return install


def sending(folder: Path, moment: int, number: int) -> Callable[[], None]:
    """A signal before the change ``moment``: SIGKILL to the whole process group, another to its leader."""
    count = 0

    def fault(event: str) -> None:
        nonlocal count
        count += 1
        if count == moment:
            (os.killpg if number == signal.SIGKILL else os.kill)(os.getpgrp(), number)

    return watching(folder, fault)


def failing(folder: Path, moment: int, number: int) -> Callable[[], None]:
    """From the change ``moment`` on, every change but a removal raises OSError."""
    count = 0

    def fault(event: str) -> None:
        nonlocal count
        count += 1
        if count >= moment and event not in REMOVALS:
            raise OSError(number, os.strerror(number), str(folder / "file"))

    return watching(folder, fault)
