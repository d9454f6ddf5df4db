"""Where the boards are in the text of a level collection: the rest is titles, notes, numbers and authors.

The formats .xsb and .sok as they are found: sokobano.de/wiki/index.php?title=Level_format, ?title=Sok_format.
A board row is a line of board symbols with at least one wall. Run lengths (``3#@2 $``, ``2(#-)``) are written
out, and ``|`` separates the rows of a level that stands on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from repro_rl.errors import DataError
from repro_rl.files.reading import read_bytes

SYMBOLS = "#@+$*. -_"
FLOOR = str.maketrans("-_", "  ")  # both floors that are visible, as the one that is not
# Further symbols of .sok files: pusher, pusher on goal, box, box on goal, goal; both floors that are visible.
_PLAIN = str.maketrans("pPbBo-_", "@+$*.  ")
_RUN = re.compile(r"(\d*)(?:([#@+$*. \-_pPbBo|])|\(([^()]*)\))")
_LINE_END = re.compile(r"\r\n|\n|\r")
_NOTE, _NOTE_END = (
    re.compile(r"\s*comment:\s*", re.IGNORECASE),
    re.compile(r"\s*comment[-_ ]?end:", re.IGNORECASE),
)
MAX_RUN = 1_000  # a longer run is an error of its own, before it fills the memory


@dataclass(slots=True)
class Board:
    """The rows of one level, in the symbols ``# @ + $ * .`` and space."""

    rows: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # of the file, from 1; one for each row
    next_text: str = ""  # the line directly below, where it is text and not empty

    @property
    def text(self) -> str:
        """The rows, joined by newlines."""
        return "\n".join(self.rows)


def read_level_text(file: Path) -> str:
    """The text of a level file: UTF-8, UTF-16 with a byte-order mark, or else Latin-1 (boards are ASCII).

    Raises DataError where it cannot be read, and for what is no text.
    """
    data = read_bytes(file)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise DataError("is not text: it holds NUL bytes; expected a level file.", file=file)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def boards(text: str, file: object = None) -> Iterator[Board]:
    """The boards in ``text``, in order. Raises DataError for a run length that is too long."""
    lines = _LINE_END.split(text)
    board: Board | None = None
    skip = _note_lines(lines)
    goes_on = False  # the line before ends in |
    for number, line in enumerate([*lines, ""], start=1):
        rows = [] if number in skip else _rows(line, file, number)
        whole = "|" in line and not goes_on  # a level that stands on one line, or begins on this one
        if board is not None and (whole or not rows):
            board.next_text = "" if rows else line.strip()
            yield board
            board = None
        if rows:
            board = board or Board()
            board.rows += rows
            board.lines += [number] * len(rows)
        goes_on = bool(rows) and line.rstrip().endswith("|")


def _note_lines(lines: list[str]) -> set[int]:
    """Numbers (from 1) of the lines of all notes from ``Comment:`` to ``Comment-End:``."""
    inside: set[int] = set()
    start = None
    for number, line in enumerate(lines, start=1):
        if _NOTE.match(line):
            start = number
        elif start is not None and _NOTE_END.match(line):
            inside.update(range(start, number + 1))
            start = None
    return inside


def _rows(line: str, file: object, number: int) -> list[str]:
    """The board rows that a line stands for; none for text. A misspelt row is returned as it is."""
    line = _spaced(line.rstrip())
    if "#" not in line:
        return []
    if line.translate(_PLAIN).strip(SYMBOLS) == "":
        return [line.translate(_PLAIN)]
    expanded = _written_out(line, file, number)
    if expanded is not None:
        rows = [row.translate(_PLAIN).rstrip() for row in expanded.split("|")]
        return [row for row in rows if row]
    bare = line.strip()
    looks_like_one = bare[0] == "#" and 2 * sum(char in SYMBOLS for char in bare) > len(bare)
    return [line.translate(FLOOR)] if looks_like_one else []


def _spaced(line: str) -> str:
    """A line with spaces for the no-break spaces of web pages, and for tabs before its first symbol.

    Such a tab goes to the next multiple of 8, as on screens. Any other tab is no cell of a board.
    """
    line = line.replace("\u00a0", " ")
    start = len(line) - len(line.lstrip(" \t"))
    return line[:start].expandtabs() + line[start:]


def _written_out(line: str, file: object, number: int) -> str | None:
    """A line with run lengths, every symbol written as often as it stands for; None where it has none."""
    out, at = "", 0
    while at < len(line):
        run = _RUN.match(line, at)
        if run is None:
            return None
        count = int(run[1]) if run[1] else 1
        symbols = run[2] if run[3] is None else _written_out(run[3], file, number)
        if symbols is None:
            return None
        if count * len(symbols) > MAX_RUN or len(out) > 100 * MAX_RUN:
            raise DataError(
                f"the run length {count} is too long; a row has at most {MAX_RUN} cells.",
                file=file,
                field=f"line {number}",
            )
        out, at = out + symbols * count, run.end()
    return out
