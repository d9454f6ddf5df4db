"""Level files: collections in XSB symbols with titles and notes (``level_text``), and those of
Boxoban (``; N`` before each level: github.com/google-deepmind/boxoban-levels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from repro_rl.envs.sokoban.board import Layout, Room
from repro_rl.envs.sokoban.level_text import FLOOR, boards, read_level_text
from repro_rl.errors import DataError

MAX_SIDE = 200  # rows, and columns, of a level
_SPLIT_FOLDERS = {
    "train": "train",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(slots=True, frozen=True)
class LevelSet:
    """Rooms of a level file or folder, by split. A single file, or a folder of files, has the one split
    ``all``."""

    name: str
    splits: dict[str, tuple[Room, ...]]


def read_level_set(path: str | Path) -> LevelSet:
    """Read a level file, a folder of ``*.txt``/``*.xsb``/``*.sok`` files, or one with train/valid/test
    subfolders.

    Raises DataError naming the file, the level (counted from 0 within its file) and the line.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError("no such level file or folder; check the path in `levels`.", file=root)
    folders: dict[str, Path] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        split = _SPLIT_FOLDERS.get(folder.name)
        if split in folders:
            raise DataError(
                f"{folders[split].name} and {folder.name} both mean the split {split}; keep one.", file=root
            )
        if split is not None and folder.is_dir():
            folders[split] = folder
    splits = {}
    for split, split_path in (folders or {"all": root}).items():
        rooms: list[Room] = []
        for file in _files(split_path):
            stat = file.stat()
            rooms.extend(_read_cached(file, stat.st_mtime_ns, stat.st_size))
        splits[split] = tuple(rooms)
    return LevelSet(root.stem if root.is_file() else root.resolve().name, splits)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in (".txt", ".xsb", ".sok"))
    if not files:
        raise DataError("the folder holds no level file (*.txt, *.xsb, *.sok).", file=path)
    return files


@lru_cache(maxsize=2_048)
def _read_cached(file: Path, mtime: int, size: int) -> tuple[Room, ...]:
    return tuple(read_levels(file))


def read_levels(file: Path) -> list[Room]:
    """All levels of one file, in order. Raises DataError, also for a file without any level."""
    rooms: list[Room] = []
    for board in boards(read_level_text(file), file):
        note = f" The line below it, {board.next_text[:80]!r}, was read as text." if board.next_text else ""
        rooms.append(parse_room(board.text, file=file, record=len(rooms), lines=board.lines, note=note))
    if not rooms:
        raise DataError("holds no level; expected rows of # @ + $ * . and space.", file=file)
    return rooms


@dataclass(slots=True, frozen=True)
class _Location:
    """Where a level stands, for error messages."""

    file: object
    level: str | None  # such as "level 3"
    lines: Sequence[int]  # of the file, from 1; one for each row
    note: str  # what else may be the cause; completes the message

    def error(self, message: str, row: int | None = None) -> DataError:
        """``row``: row of the level, from 0; None: the whole level."""
        first, last = self.lines[0], self.lines[-1]
        lines = f"lines {first} to {last}" if row is None else f"line {self.lines[row]}"
        return DataError(message + self.note, file=self.file, record=self.level, field=lines)


def parse_room(
    text: str, *, file: object = None, record: object = None, lines: Sequence[int] = (), note: str = ""
) -> Room:
    """One level in XSB symbols. Floor outside the room becomes wall.

    ``lines``: where each row stands in the file, from 1. ``note``: completes the message of an error.

    Raises DataError for an unknown character, more than ``MAX_SIDE`` rows or columns, and no or several
    players. It does so too for boxes and targets of different number, a level without boxes or already
    solved, and a room that is not closed. ``record`` and line say where.
    """
    rows = text.translate(FLOOR).split("\n")
    numbers = lines or range(1, len(rows) + 1)
    location = _Location(file, None if record is None else f"level {record}", numbers, note)
    for r, line in enumerate(rows):
        for c, symbol in enumerate(line):
            if symbol not in "#@+$*. ":
                raise location.error(
                    f"unknown character {symbol!r} in column {c + 1}; a level uses # @ + $ * . - _ space.", r
                )
    width = max(map(len, rows))
    if max(width, len(rows)) > MAX_SIDE:
        raise location.error(f"{len(rows)} rows and {width} columns; the limit is {MAX_SIDE} of each.")
    grid = [list(line.ljust(width)) for line in rows]
    players, boxes, targets = (_cells(grid, symbols) for symbols in ("@+", "$*", ".+*"))
    if len(players) != 1:
        raise location.error(
            f"{len(players) or 'no'} player; a level needs exactly one @ (or + on a target)."
        )
    if len(boxes) != len(targets) or not boxes:
        raise location.error(
            f"{len(boxes)} boxes ($ *) and {len(targets)} targets (. + *); both must be equal, at least 1."
        )
    if set(boxes) == set(targets):
        raise location.error("every box stands on a target already; there is nothing to do.")
    outside = _outside(grid)
    for r, c in (*players, *boxes, *targets):
        if (r, c) in outside:
            raise location.error(
                "the room is not closed: there is a gap in the walls, or something stands outside.", r
            )
    return _room(grid, outside, players[0], boxes)


def _cells(grid: list[list[str]], symbols: str) -> list[tuple[int, int]]:
    """(row, column) of every cell that holds one of ``symbols``, in reading order."""
    return [(r, c) for r, line in enumerate(grid) for c, symbol in enumerate(line) if symbol in symbols]


def _room(
    grid: list[list[str]],
    outside: set[tuple[int, int]],
    player: tuple[int, int],
    boxes: list[tuple[int, int]],
) -> Room:
    def static(r: int, c: int) -> str:
        """Wall, target or floor: the cell without player and boxes."""
        if (r, c) in outside:
            return "#"
        return "." if grid[r][c] in ".+*" else "#" if grid[r][c] == "#" else " "

    lines = ["".join(static(r, c) for c in range(len(line))) for r, line in enumerate(grid)]
    layout = Layout.of("\n".join(lines))
    index = {cell: i for i, cell in enumerate(layout.floor)}
    return Room(layout, index[player], tuple(sorted(index[box] for box in boxes)))


def _outside(grid: list[list[str]]) -> set[tuple[int, int]]:
    """Cells that are not wall and are connected with the edge of the map."""
    rows, cols = len(grid), len(grid[0])
    stack = [(r, c) for r in range(rows) for c in range(cols) if r in (0, rows - 1) or c in (0, cols - 1)]
    outside = set()
    while stack:
        r, c = stack.pop()
        if (r, c) in outside or not (0 <= r < rows and 0 <= c < cols) or grid[r][c] == "#":
            continue
        outside.add((r, c))
        stack += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
    return outside
