"""Files are written whole or not at all: temporary name, fsync, rename.

A temporary name holds the id of its process. What a killed process leaves is found by that name and removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from repro_rl.errors import ReproError
from repro_rl.files.processes import is_running

# .NAME.PID.tmp; .NAME.PID.HEX.tmp; .NAME.PID.old.tmp, which NAME was before it was replaced
_TEMPORARY = re.compile(r"^\.(?P<name>.+?)\.(?P<pid>\d+)(\.[0-9a-f]{8})?(\.tmp)?(?P<old>\.old)?\.tmp$")
# In the messages of safetensors and tokenizers; and of shutil, which collects the errors of many files.
_HIDDEN_ERROR = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError inside names ``path``, unless it names another file that is not a temporary one.

    One that a library hides in the message of another exception becomes an OSError.
    """
    try:
        yield
    except Exception as error:
        number, file = os_error(error)
        if number is None or (file is not None and ".tmp" not in file):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def os_error(error: Exception) -> tuple[int | None, str | None]:
    """The number and the file of an OSError, also of one in the message of another exception.

    No number: it is none, or one of this package, which says more than the number does.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno, None if error.filename is None else str(error.filename)
    if isinstance(error, ReproError):
        return None, None
    found = _HIDDEN_ERROR.search(str(error))
    return (None, None) if found is None else (int(found[1] or found[2]), None)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write beside ``path``, which then takes its place: who has mapped the old file keeps it."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` atomically."""
    with replacing(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` atomically by ``text`` in UTF-8, line breaks as they are."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: a NaN raises ValueError rather than writing a file that others cannot read."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a line to a file of lines, on the disk before it returns.

    Half a line that a killed process left before it is ended first. Raises OSError naming the file.
    """
    with naming(path), open(path, "ab") as handle:
        handle.write(end_of_half_line(path) + line.encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())


def end_of_half_line(path: Path) -> bytes:
    """A newline where the file ends without one."""
    with open(path, "rb") as handle:
        if handle.seek(0, os.SEEK_END) == 0:
            return b""
        handle.seek(-1, os.SEEK_END)
        return b"" if handle.read(1) == b"\n" else b"\n"


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Let ``fill`` write into a temporary folder, then put it in the place of ``path``.

    When anything fails, nothing is left of the temporary folder, and ``path`` is as it was.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(path.parent, of=path.name)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            fill(temporary)
            _sync(temporary)
            _take_place(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())


def _take_place(temporary: Path, path: Path) -> None:
    """Two renames: a kill between them leaves the old folder by a name that ``sweep_temporaries`` knows."""
    if not path.exists():
        os.replace(temporary, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder; a kill in the middle leaves nothing by its name."""
    doomed = path.with_name(f".{path.name}.old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep_temporaries(folder: Path, of: str | None = None) -> None:
    """Remove what killed processes left half-written directly in ``folder``.

    Files of a process that still runs stay. A folder that was about to be replaced when its process was
    killed gets its name back. ``of``: only what belongs to this name.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.glob(".*.tmp")):
        found = _TEMPORARY.match(path.name)
        if of is not None and (found is None or found["name"] != of):
            continue
        if found is not None and is_running(int(found["pid"])):
            continue
        if found is not None and found["old"] and not (folder / found["name"]).exists():
            path.rename(folder / found["name"])
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
