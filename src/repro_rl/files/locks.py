"""One writer a folder: a lock that the operating system drops when its holder ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from repro_rl.errors import PreflightError
from repro_rl.files.processes import is_running
from repro_rl.files.writing import sweep_temporaries

LOCK_FILE = ".lock"
PATIENCE = 15.0  # seconds to wait for what a dead holder has left behind to end too
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
FAR = 1 << 30  # where the lock lies on Windows, which locks against reading too: behind the text


@contextmanager
def only_writer(path: Path, what: str = "process", patience: float = PATIENCE) -> Iterator[int | None]:
    """Hold the lock file ``path``, which holds the id of this process; it is removed at the end.

    Missing folders are made for it; at the end they are removed again where they hold nothing.
    Yields its descriptor, which may be handed to children: they hold the lock too. ``what``: who works there,
    for messages. Raises PreflightError naming the holder's process id. Where the file system has no locks,
    that is said in a warning, and None is yielded.
    """
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        with _locked(path, what, patience) as handle:
            yield handle
    finally:
        with suppress(OSError):  # one that is not empty ends it
            for folder in made:
                folder.rmdir()


@contextmanager
def _locked(path: Path, what: str, patience: float) -> Iterator[int | None]:
    """See ``only_writer``."""
    handle = _acquire(path, what, time.monotonic() + patience)
    if handle is None:
        yield None
        return
    try:
        with suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield handle
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _acquire(path: Path, what: str, deadline: float) -> int | None:
    """The descriptor of the locked file; None where there are no locks."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another process has removed the empty folder in between
            if time.monotonic() > deadline:
                raise
            continue
        try:
            _lock(handle)
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except OSError as error:
            holder = _holder(handle)
            os.close(handle)
            if error.errno in UNSUPPORTED:
                warnings.warn(
                    f"{path.parent} is on a file system without locks: start only one process that writes "
                    "there.",
                    stacklevel=6,
                )
                return None
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            if (holder is not None and is_running(holder)) or time.monotonic() > deadline:
                raise PreflightError(_refusal(path, what, holder)) from error
            time.sleep(0.1)
            continue
        os.close(handle)  # its holder removed it in between


def _lock(handle: int) -> None:
    """Raises OSError when somebody else has the lock."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(handle: int) -> int | None:
    """The process id in a lock file; None where there is none yet."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        text = os.read(handle, 32).decode("ascii", "replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _refusal(path: Path, what: str, holder: int | None) -> str:
    place = path.parent if path.name == LOCK_FILE else path.with_name(path.name[1:].removesuffix(LOCK_FILE))
    if holder is None or is_running(holder):
        name = "" if holder is None else f" (process id {holder})"
        return f"Another {what}{name} is writing {place}; wait for it or end it, or use another folder."
    return (
        f"A process that the {what} of process id {holder} left behind still writes {place}; wait for it or "
        "end it, or use another folder."
    )


@contextmanager
def only_maker(path: Path, what: str) -> Iterator[None]:
    """As ``only_writer``, for something that appears as a whole: the lock lies beside ``path``.

    What killed processes have left of it is removed.
    """
    path = path.absolute()
    with only_writer(path.with_name(f".{path.name}{LOCK_FILE}"), what):
        sweep_temporaries(path.parent, of=path.name)
        yield
