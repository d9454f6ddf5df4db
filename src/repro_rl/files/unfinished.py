"""Rows of work that is under way: appended as they come, read again by the command that continues it."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from repro_rl.errors import DataError
from repro_rl.files.json_data import check_count
from repro_rl.files.limits import MAX_UNREADABLE
from repro_rl.files.lines import lines_of
from repro_rl.files.writing import end_of_half_line, naming

KEY_LETTERS = 16


def key_of(settings: Any) -> str:
    """A short name of JSON data: work with other settings is other work."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LETTERS]


class UnfinishedRows:
    """Rows in a file of JSON lines; ``key`` tells apart the work that they are part of.

    A row is with the operating system when ``add`` returns, so a killed process loses none. Half a line is no
    row. Rows of another key stay until the file is removed.
    """

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key
        self._handle: IO[bytes] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """The rows of this work. Raises OSError, and DataError for a file beyond the limits."""
        return rows_of(self.path, self.key)

    def open(self) -> None:
        """Begin to write. Raises OSError at once where that is not possible."""
        if self._handle is None:
            with naming(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                handle = open(self.path, "ab", buffering=0)  # noqa: SIM115  closed by close
                handle.write(end_of_half_line(self.path))
                self._handle = handle

    def add(self, row: dict[str, Any]) -> None:
        """Append a row. Raises OSError naming the file."""
        self.open()
        assert self._handle is not None
        line = json.dumps({"key": self.key, **row}, ensure_ascii=False).encode() + b"\n"
        with naming(self.path):
            start = self._handle.seek(0, os.SEEK_END)
            try:
                written = self._handle.write(line)
                if written != len(line):  # a disk that is nearly full takes a part first, then refuses
                    self._handle.write(line[written:])
            except OSError:
                with suppress(OSError):
                    os.truncate(self.path, start)
                raise

    def close(self) -> None:
        """Stop writing; an empty file is removed."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
            with suppress(OSError):
                if self.path.stat().st_size == 0:
                    self.path.unlink()

    def remove(self) -> None:
        """The work is finished, and its result written: nothing is left to continue."""
        self.close()
        self.path.unlink(missing_ok=True)


def rows_of(path: Path, key: str) -> list[dict[str, Any]]:
    """The rows of the work ``key`` in a file; none without the file.

    Raises OSError, and DataError for a file with more than ``MAX_UNREADABLE`` lines that are not JSON.
    """
    if not path.exists():
        return []
    rows = []
    unreadable = 0
    with naming(path):
        for line in lines_of(path):
            try:
                text = line.text.decode()
                check_count(text)
                row = json.loads(text)  # a random generator's state is larger than any 64 bits
            except (ValueError, RecursionError) as error:  # half a line: a killed process was writing it
                unreadable += 1
                if unreadable > MAX_UNREADABLE:
                    message = f"holds more than {MAX_UNREADABLE:,} lines that are not JSON; delete it"
                    raise DataError(message, file=path) from error
                continue
            if isinstance(row, dict) and row.pop("key", None) == key:
                rows.append(row)
    return rows
