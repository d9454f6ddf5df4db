"""Files as bytes and text: bounded in size, UTF-8 whatever the locale says, and an error names the file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from repro_rl.errors import DataError
from repro_rl.files.limits import MAX_TEXT

BOM = b"\xef\xbb\xbf"


def open_regular(path: Path) -> int:
    """A descriptor to read ``path`` from.

    Raises DataError for what is no regular file (a pipe would be waited for), and where it cannot be opened.
    """
    try:
        # A pipe without a writer would otherwise block the call itself.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise DataError(f"cannot be read: {reason(error)}", file=path) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DataError("cannot be read: it is no regular file", file=path)
    return handle


def read_bytes(path: Path, limit: int = MAX_TEXT) -> bytes:
    """The content of a file. Raises DataError where it cannot be read, and beyond ``limit`` bytes."""
    try:
        with open(open_regular(path), "rb") as handle:
            data = handle.read(limit + 1)
    except OSError as error:
        raise DataError(f"cannot be read: {reason(error)}", file=path) from error
    if len(data) > limit:
        raise DataError(f"is larger than the limit of {limit:,} bytes for such a file", file=path)
    return data


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """The text of a UTF-8 file without its byte-order mark. Raises DataError as ``read_bytes``."""
    return decode(read_bytes(path, limit), file=path)


def decode(data: bytes, *, file: object = None, record: object = None) -> str:
    """UTF-8 text, a byte-order mark left out. Raises DataError naming the first byte that is none."""
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + (len(BOM) if data.startswith(BOM) else 0)
        raise DataError(
            f"is not UTF-8 text: byte {data[at]:#04x} at offset {at:,}", file=file, record=record
        ) from error


def reason(error: BaseException) -> str:
    """The system's or library's own reason in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
