"""JSON lines, plain or gzip: one bounded line at a time, each with its number.

A gzip file that is empty or cut off is an error, never "no lines".
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from repro_rl.errors import DataError
from repro_rl.files.json_data import parse_object
from repro_rl.files.limits import (
    MAX_BLANK,
    MAX_PACKED_VALUES,
    MAX_RATIO,
    MAX_ROW_VALUES,
    MAX_ROWS,
    MAX_TEXT,
    MAX_UNPACKED,
)
from repro_rl.files.reading import open_regular, reason

GZIP_MAGIC = b"\x1f\x8b"


class Line(NamedTuple):
    """One line of a file, not blank."""

    number: int  # from 1
    offset: int  # of its first byte in the unpacked file
    text: bytes  # with its newline, which only the last line may lack


class Unpacked:
    """The unpacked bytes of a file, plain or gzip.

    ``packed``: True where the file must be gzip, None where its first bytes decide. Raises DataError naming
    the file, also once it unpacks to more than the limit.
    """

    def __init__(self, path: Path, packed: bool | None = None):
        self.path, self.read_so_far, self.values = path, 0, 0
        raw = open(open_regular(path), "rb")  # noqa: SIM115  closed by close
        self.size = os.fstat(raw.fileno()).st_size
        magic = raw.peek(2)[:2]
        self._raw = raw
        if packed and magic != GZIP_MAGIC:
            raw.close()
            found = "is empty" if not self.size else "is no gzip file"
            raise DataError(f"{found}: not a whole gzip file; copy or make it again", file=path)
        self.packed = magic == GZIP_MAGIC
        self._file: IO[bytes] = gzip.GzipFile(fileobj=raw) if self.packed else raw  # type: ignore[assignment]

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; b"" at the end."""
        try:
            data = self._file.read(count)
        except (OSError, EOFError, zlib.error) as error:
            raise self._broken(error) from error
        return self._counted(data)

    def line(self) -> bytes:
        """The next line with its newline; b"" at the end. Raises DataError for a line beyond the limit."""
        try:
            data = self._file.readline(MAX_TEXT + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise self._broken(error) from error
        if len(data) > MAX_TEXT:
            raise DataError(f"holds a line larger than the limit of {MAX_TEXT:,} bytes", file=self.path)
        self.values += data.count(b",") + data.count(b"{") + data.count(b"[")
        return self._counted(data)

    def seek(self, offset: int) -> None:
        """Go to a byte of the unpacked file, forwards."""
        while self.read_so_far < offset:
            if not self.read(min(1 << 20, offset - self.read_so_far)):
                return

    def _counted(self, data: bytes) -> bytes:
        self.read_so_far += len(data)
        if self.packed and self.read_so_far > max(MAX_UNPACKED, MAX_RATIO * self.size):
            raise DataError(
                f"unpacks to more than {MAX_UNPACKED:,} bytes, over {MAX_RATIO} times its own size; such a "
                "file is refused",
                file=self.path,
            )
        if self.packed and self.values > MAX_PACKED_VALUES and self.read_so_far > MAX_RATIO * self.size:
            raise DataError(
                f"unpacks to more than {MAX_PACKED_VALUES:,} values, over {MAX_RATIO} times its own size; "
                "such a file is refused",
                file=self.path,
            )
        return data

    def _broken(self, error: Exception) -> DataError:
        if not self.packed:
            return DataError(f"cannot be read: {reason(error)}", file=self.path)
        what = "cut off" if isinstance(error, EOFError) else "damaged"
        return DataError(
            f"{what}, not a whole gzip file ({reason(error)}); copy or make it again", file=self.path
        )


def lines_of(path: Path, packed: bool | None = None) -> Iterator[Line]:
    """The lines of a file that are not blank. Raises DataError as ``Unpacked``, after the lines before."""
    with Unpacked(path, packed) as file:
        number = blank = 0
        while text := file.line():
            number += 1
            blank = 0 if text.strip() else blank + 1
            if blank > MAX_BLANK:
                raise DataError(
                    f"more than {MAX_BLANK:,} blank lines one after another",
                    file=path,
                    record=f"line {number}",
                )
            if not blank:
                yield Line(number, file.read_so_far - len(text), text)


def json_lines(
    path: Path, packed: bool | None = None, *, constants: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line from 1, JSON object) of a file; ``constants``: see ``parse_json``.

    Raises DataError naming file and line.
    """
    for line in lines_of(path, packed):
        where = f"line {line.number}"
        yield line.number, parse_object(line.text.rstrip(), file=path, record=where, constants=constants)


@dataclass(slots=True)
class Rows:
    """The rows of a file that grows by a line at a time, such as metrics.jsonl."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[tuple[Line, DataError]] = field(default_factory=list)  # with what is wrong
    unfinished: int | None = None  # the number of a last line that its writer did not finish

    def check(self) -> Rows:
        """Itself. Raises DataError naming the first row that cannot be read."""
        for _, error in self.unreadable:
            raise error
        return self


def read_rows(path: Path, key: str = "iteration") -> Rows:
    """The rows of a file of JSON lines; none without the file. Each needs a whole number ``key``, 0 or more.

    NaN and Infinity are read: a training that diverges writes them. Raises DataError where the file itself
    cannot be read.
    """
    found = Rows()
    values = 0
    for line in lines_of(path) if path.exists() else ():
        where = f"line {line.number}"
        values += line.text.count(b",") + 1
        if len(found.rows) >= MAX_ROWS or values > MAX_ROW_VALUES:
            raise DataError(
                f"holds more than the limit of {MAX_ROWS:,} rows or {MAX_ROW_VALUES:,} values", file=path
            )
        try:
            row = parse_object(line.text.rstrip(), file=path, record=where, constants=True)
            number = row.get(key)
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise DataError("a whole number, 0 or more, is missing", file=path, record=where, field=key)
            found.rows.append(row)
        except DataError as error:
            if line.text.endswith(b"\n"):
                found.unreadable.append((line, error))
            else:
                found.unfinished = line.number
    return found


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of ``read_rows``, an unfinished last line left out.

    Raises DataError naming file and line of any other row that cannot be read.
    """
    return read_rows(path).check().rows
