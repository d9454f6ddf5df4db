"""Rooms and moves.

A cell of a room is named by its *floor index*: the floor cells (everything that is not wall) numbered 0..N-1
in reading order. A state is ``(player, boxes)`` with ``boxes`` an ascending tuple of floor indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

ACTIONS: tuple[str, ...] = ("up", "down", "left", "right")
DELTAS: tuple[tuple[int, int], ...] = ((-1, 0), (1, 0), (0, -1), (0, 1))  # (row, column) of each action

State = tuple[int, tuple[int, ...]]  # (player, boxes)


class Layout:
    """Walls and targets of a room: the part that no move changes. Compared by identity; build with ``of``.

    ``text``: rows of ``#``, space and ``.``, joined by newlines. ``floor``: N pairs (row, column).
    ``targets``: floor indices, ascending. ``moves``: 4 tuples (up, down, left, right) of N floor indices, -1
    = wall. ``inner_walls``: pairs (row, column) of the walls that are not on the outer border, in reading
    order.
    """

    __slots__ = ("cols", "floor", "inner_walls", "moves", "rows", "size", "targets", "text")

    def __init__(self, text: str):
        lines = text.split("\n")
        self.text = text
        self.rows, self.cols = len(lines), len(lines[0])
        cells = [(r, c) for r, line in enumerate(lines) for c, symbol in enumerate(line) if symbol != "#"]
        index = {cell: i for i, cell in enumerate(cells)}
        self.floor: tuple[tuple[int, int], ...] = tuple(cells)
        self.size = len(cells)
        self.targets: tuple[int, ...] = tuple(i for i, (r, c) in enumerate(cells) if lines[r][c] == ".")
        self.moves: tuple[tuple[int, ...], ...] = tuple(
            tuple([index.get((r + dr, c + dc), -1) for r, c in cells]) for dr, dc in DELTAS
        )
        self.inner_walls: tuple[tuple[int, int], ...] = tuple(
            (r, c) for r in range(1, self.rows - 1) for c in range(1, self.cols - 1) if lines[r][c] == "#"
        )

    @staticmethod
    @lru_cache(maxsize=16_384)
    def of(text: str) -> Layout:
        """The one Layout of ``text`` in this process (shared between rooms and environments)."""
        return Layout(text)

    def connected(self) -> bool:
        """Whether every floor cell can be reached from every other one, boxes ignored."""
        if not self.size:
            return False
        reached, stack = {0}, [0]
        while stack:
            cell = stack.pop()
            for row in self.moves:
                to = row[cell]
                if to >= 0 and to not in reached:
                    reached.add(to)
                    stack.append(to)
        return len(reached) == self.size


@dataclass(slots=True, frozen=True)
class Room:
    """A layout with a start state. ``player``: floor index; ``boxes``: floor indices, ascending."""

    layout: Layout
    player: int
    boxes: tuple[int, ...]

    @property
    def text(self) -> str:
        """The room in XSB symbols (``# @ + $ * .`` and space), rows joined by newlines, no trailing
        newline."""
        return render_xsb(self.layout, self.player, self.boxes)


def render_xsb(layout: Layout, player: int, boxes: tuple[int, ...]) -> str:
    """A state in XSB symbols: ``#`` wall, ``@`` player, ``+`` player on target, ``$`` box, ``*`` box on
    target."""
    cells = [list(line) for line in layout.text.split("\n")]
    for box in boxes:
        r, c = layout.floor[box]
        cells[r][c] = "*" if cells[r][c] == "." else "$"
    r, c = layout.floor[player]
    cells[r][c] = "+" if cells[r][c] == "." else "@"
    return "\n".join("".join(line) for line in cells)


def move(layout: Layout, player: int, boxes: tuple[int, ...], direction: int) -> State | None:
    """The state after moving in ``direction`` (index into ACTIONS), or None when wall or box stops the
    player."""
    row = layout.moves[direction]
    to = row[player]
    if to < 0:
        return None
    if to not in boxes:
        return to, boxes
    beyond = row[to]
    if beyond < 0 or beyond in boxes:
        return None
    if len(boxes) == 1:
        return to, (beyond,)
    return to, tuple(sorted([beyond if box == to else box for box in boxes]))


def symmetries(text: str) -> list[str]:
    """The 8 rotations and reflections of a rectangular text (with repeats where the text is symmetric)."""
    lines = text.split("\n")
    texts = []
    for _ in range(4):
        lines = ["".join(column) for column in zip(*lines[::-1], strict=True)]
        texts.append("\n".join(lines))
        texts.append("\n".join([line[::-1] for line in lines]))
    return texts


def canonical(text: str) -> str:
    """The smallest of the 8 symmetries: equal for two rooms exactly when one is the other rotated or
    reflected."""
    return min(symmetries(text))
