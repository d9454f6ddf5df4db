"""JSON lines, plain or gzip: one bounded line at a time, each with its number.

A gzip file that is empty or cut off is an error, never "no lines".
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from repro_rl.errors import DataError
from repro_rl.files.json_data import parse_object
from repro_rl.files.limits import (
    LINE_BYTES,
    MAX_BLANK,
    MAX_RATIO,
    MAX_ROW_VALUES,
    MAX_ROWS,
    MAX_TEXT,
    MAX_UNPACKED,
    MAX_UNREADABLE,
    MIB,
    VALUE_BYTES,
    WIDEST,
)
from repro_rl.files.names import OLD_METRICS
from repro_rl.files.reading import open_regular, reason

GZIP_MAGIC = b"\x1f\x8b"
ONE_A_LINE = "in JSON lines each line holds one whole object, and nothing stands around them"
PIECE = 1024  # bytes of a gzip file that are read at once


class Line(NamedTuple):
    """One line of a file, not blank."""

    number: int  # from 1
    offset: int  # of its first byte in the unpacked file
    text: bytes  # with its newline, which only the last line may lack


class _Pieces(io.BufferedReader):
    """A file that is read in small pieces; ``taken``: how many bytes of it were."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(PIECE if size is None or size < 0 else min(size, PIECE))
        self.taken += len(data)
        return data


class Unpacked:
    """The unpacked bytes of a file, plain or gzip.

    ``packed``: True where the file must be gzip, None where its first bytes decide. Raises DataError naming
    the file, also where a stretch of it unpacks to more than the limits allow.
    """

    def __init__(self, path: Path, packed: bool | None = None):
        self.path, self.read_so_far = path, 0
        self._excess = 0  # bytes that a stretch unpacks to beyond MAX_RATIO times what it takes in the file
        self._memory = 0  # bytes that the stretch may take, parsed
        handle = io.FileIO(open_regular(path))
        magic = handle.read(2)
        handle.seek(0)
        if packed and magic != GZIP_MAGIC:
            handle.close()
            found = "is no gzip file" if magic else "is empty"
            raise DataError(f"{found}: not a whole gzip file; copy or make it again", file=path)
        self.packed = magic == GZIP_MAGIC
        self._raw, self._taken = _Pieces(handle), 0
        self._file = gzip.GzipFile(fileobj=self._raw) if self.packed else io.BufferedReader(handle)

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; b"" at the end."""
        data = self._next(count)
        self._count(data, 0)
        return data

    def line(self) -> bytes:
        """The next line with its newline; b"" at the end. Raises DataError for a line beyond the limit."""
        try:
            data = self._file.readline(MAX_TEXT + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise self._broken(error) from error
        if len(data) > MAX_TEXT:
            raise DataError(f"holds a line larger than the limit of {MAX_TEXT:,} bytes", file=self.path)
        self.read_so_far += len(data)
        self._count(data, LINE_BYTES)
        return data

    def seek(self, offset: int) -> None:
        """Go to a byte of the unpacked file, forwards; what is skipped takes no memory."""
        while self.read_so_far < offset:
            if not self._next(min(MIB, offset - self.read_so_far)):
                return

    def _next(self, count: int) -> bytes:
        try:
            data = self._file.read(count)
        except (OSError, EOFError, zlib.error) as error:
            raise self._broken(error) from error
        self.read_so_far += len(data)
        return data

    def _count(self, data: bytes, more: int) -> None:
        """Count what was unpacked, which may take ``more`` memory beside its text and values.

        Not over the whole file: a file of much random data could hide a small part that grows a thousandfold.
        """
        if not self.packed:
            return
        if taken := self._raw.taken - self._taken:
            self._taken += taken
            self._excess = max(self._excess, 0) - MAX_RATIO * taken  # what grew less before does not count
        self._excess += len(data)
        if self._excess <= 0:
            self._memory = 0
            return
        wide = not data.isascii() or b"\\u" in data
        self._memory += (WIDEST if wide else 1) * len(data) + VALUE_BYTES * _values(data) + more
        if self._memory > MAX_UNPACKED:
            raise DataError(
                f"a part of it unpacks to over {MAX_RATIO} times its size and would take over "
                f"{MAX_UNPACKED // MIB:,} MiB of memory; such a file is refused",
                file=self.path,
            )

    def _broken(self, error: Exception) -> DataError:
        if not self.packed:
            return DataError(f"cannot be read: {reason(error)}", file=self.path)
        what = "cut off" if isinstance(error, EOFError) else "damaged"
        return DataError(
            f"{what}, not a whole gzip file ({reason(error)}); copy or make it again", file=self.path
        )


def _values(data: bytes) -> int:
    """At least the number of values in a JSON text, but for one.

    Each begins a list or an object, or follows a comma.
    """
    return data.count(b",") + data.count(b"{") + data.count(b"[")


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
        text = line.text.rstrip()
        try:
            value = parse_object(text, constants=constants)
        except DataError as error:
            begins_document = text.lstrip()[:1] == b"[" or text.strip() == b"{"
            form = f"; {ONE_A_LINE}" if begins_document else ""
            raise DataError(f"{error}{form}", file=path, record=f"line {line.number}") from error
        yield line.number, value


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

    NaN and Infinity are read: a training that diverges writes them. Metrics get their present names.
    Raises DataError where the file itself cannot be read, and where it holds more than the limits.
    """
    found = Rows()
    values = unreadable = 0
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
            found.rows.append({OLD_METRICS.get(name, name): value for name, value in row.items()})
        except DataError as error:
            if line.text.endswith(b"\n"):
                found.unreadable.append((line, error))
                unreadable += len(line.text)
                if len(found.unreadable) > MAX_UNREADABLE or unreadable > MAX_TEXT:
                    raise DataError(
                        f"holds more than {MAX_UNREADABLE:,} rows, or {MAX_TEXT:,} bytes, that cannot be "
                        f"read, from line {found.unreadable[0][0].number} on; put the right file there",
                        file=path,
                    ) from error
            else:
                found.unfinished = line.number
    return found


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of ``read_rows``, an unfinished last line left out.

    Raises DataError naming file and line of any other row that cannot be read.
    """
    return read_rows(path).check().rows
