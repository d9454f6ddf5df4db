"""Files are written whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from repro_rl.errors import DataError


def cache_root() -> Path:
    """$REPRO_RL_CACHE, or ``repro-rl`` in the platform's folder for caches. Not created here."""
    if chosen := os.environ.get("REPRO_RL_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "repro-rl"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write beside ``path``, which then takes its place: who has mapped the old file keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` atomically."""
    with replacing(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: a NaN raises ValueError rather than writing a file that others cannot read."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(
    path: Path,
    what: str = "JSON object",
    fields: Mapping[str, type | tuple[type, ...]] | None = None,
    advice: str = "",
) -> dict[str, Any]:
    """The JSON object in a file, UTF-8.

    Raises DataError naming the file when it cannot be read, holds something else, or lacks one of ``fields``,
    each with the type it must have. ``what`` the file should hold and the ``advice`` are in the message.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"an object was expected, not {type(value).__name__}")
        for name, kind in (fields or {}).items():
            if not isinstance(value.get(name), kind):
                raise ValueError(f"{name!r} is missing or of another type")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"no {what} ({error}){advice}.", file=path) from error
    return value


def read_json_if_any(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none that can be read."""
    try:
        return read_json(path)
    except DataError:
        return {}


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines, UTF-8; none without the file.

    A line that is no JSON is left out, as a killed run leaves its last one.
    """
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                rows.append(value)
    return rows


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Let ``fill`` write into a temporary folder, then put it in the place of ``path`` in one rename.

    When ``fill`` fails, nothing is left of the temporary folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        fill(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for file in temporary.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    if path.exists():
        old = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, path)


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written directly in ``folder``."""
    if not folder.exists():
        return
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
