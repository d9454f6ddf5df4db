"""Renders a state as text: three styles and their vocabularies.

``relative`` (for tiny models; one whitespace-separated word a feature)::

    at:2,3 box:+1,+0 goal:-1,+2 wall:+0,-1

Player: (row, column) from the top left of the room with its border. For every box in reading order there
follow its offset from the player, then the offset of every target from that box. Last come the offsets of the
inner walls from the player. With ``encoding="split"``:
``at:r2 at:c3 box:down1 box:right0 goal:up1 goal:right2 wall:d0l1``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from repro_rl.envs.instructions import read_instructions
from repro_rl.envs.sokoban.board import ACTIONS, Layout

# XSB symbols as ``picture`` draws them; every character is in cp1252 but the wall's, which becomes ##.
PICTURE = {"#": "██", " ": "  ", ".": "··", "@": "@ ", "+": "@·", "$": "[]", "*": "{}"}
PICTURE_LEGEND = "@ you   [] box   ·· target   {} box on a target"

Rendered = tuple[str, str]  # observation, brief
Renderer = Callable[[int, tuple[int, ...]], Rendered]


@cache
def at_words(row: int, col: int, encoding: str) -> str:
    """The player's position: 1 word fused, 2 words split."""
    return f"at:{row},{col}" if encoding == "fused" else f"at:r{row} at:c{col}"


@cache
def offset_words(kind: str, dr: int, dc: int, encoding: str) -> str:
    """A relative position: 1 word fused, 2 split (``box``, ``goal``); a ``wall`` is always 1 word."""
    if encoding == "fused":
        return f"{kind}:{dr:+d},{dc:+d}"
    if kind == "wall":
        return f"wall:{'u' if dr < 0 else 'd'}{abs(dr)}{'l' if dc < 0 else 'r'}{abs(dc)}"
    return f"{kind}:{'up' if dr < 0 else 'down'}{abs(dr)} {kind}:{'left' if dc < 0 else 'right'}{abs(dc)}"


class _Relative:
    """Renders the states of one layout; the words of each part are computed once."""

    __slots__ = ("_at", "_box", "_encoding", "_goals", "_layout", "_walls")

    def __init__(self, layout: Layout, encoding: str):
        self._layout, self._encoding = layout, encoding
        self._at = [at_words(r, c, encoding) for r, c in layout.floor]
        self._box: dict[tuple[int, int], str] = {}
        self._goals: dict[int, str] = {}
        self._walls: dict[int, str] = {}

    def __call__(self, player: int, boxes: tuple[int, ...]) -> Rendered:
        brief = self._at[player]
        for box in boxes:
            words = self._box.get((player, box))
            if words is None:
                words = self._box[player, box] = self._describe(player, box)
            brief += words
        walls = self._walls.get(player)
        if walls is None:
            r, c = self._layout.floor[player]
            walls = self._walls[player] = "".join(
                " " + offset_words("wall", wr - r, wc - c, self._encoding)
                for wr, wc in self._layout.inner_walls
            )
        return brief + walls, brief

    def _describe(self, player: int, box: int) -> str:
        floor, encoding = self._layout.floor, self._encoding
        (pr, pc), (br, bc) = floor[player], floor[box]
        words = [offset_words("box", br - pr, bc - pc, encoding)]
        for target in self._layout.targets:
            tr, tc = floor[target]
            words.append(offset_words("goal", tr - br, tc - bc, encoding))
        return "".join(" " + word for word in words)


class _Grid:
    """Rows of space-separated symbols: ``#`` wall, ``_`` floor, ``O`` target, ``X`` box, ``P`` player,
    ``√``, ``S``."""

    __slots__ = ("_base", "_index", "_targets")

    def __init__(self, layout: Layout):
        symbols = {"#": "#", " ": "_", ".": "O"}
        lines = layout.text.split("\n")
        self._base = list("\n".join(" ".join(symbols[s] for s in line) for line in lines))
        self._index = [r * 2 * layout.cols + 2 * c for r, c in layout.floor]
        self._targets = frozenset(layout.targets)

    def __call__(self, player: int, boxes: tuple[int, ...]) -> Rendered:
        cells = self._base.copy()
        for box in boxes:
            cells[self._index[box]] = "√" if box in self._targets else "X"
        cells[self._index[player]] = "S" if player in self._targets else "P"
        text = "".join(cells)
        return text, text


class _Coordinates:
    """Lines that give the positions of player, boxes, targets and inner walls as (row, column)."""

    __slots__ = ("_head", "_names", "_tail", "_targets")

    def __init__(self, layout: Layout):
        self._names = [f"({r}, {c})" for r, c in layout.floor]
        self._targets = frozenset(layout.targets)
        self._head = (
            f"Positions are (row, column), counted from (0, 0) at the top left. The room has {layout.rows} "
            f"rows and {layout.cols} columns; its border is wall.\nPlayer: "
        )
        walls = ", ".join(f"({r}, {c})" for r, c in layout.inner_walls) or "none"
        self._tail = f"\nTargets: {', '.join(self._names[t] for t in layout.targets)}\nInner walls: {walls}"

    def __call__(self, player: int, boxes: tuple[int, ...]) -> Rendered:
        names = [f"{self._names[b]} on a target" if b in self._targets else self._names[b] for b in boxes]
        text = f"{self._head}{self._names[player]}\nBoxes: {', '.join(names)}{self._tail}"
        return text, text


@lru_cache(maxsize=8_192)
def renderer(layout: Layout, style: str, encoding: str) -> Renderer:
    """A function from (player, boxes) to (observation, brief) for one layout. Cached."""
    if style == "relative":
        return _Relative(layout, encoding)
    return _Grid(layout) if style == "grid" else _Coordinates(layout)


def picture(xsb: str) -> str:
    """A board in XSB symbols drawn for people, with a legend below."""
    rows = ("".join(PICTURE[symbol] for symbol in row) for row in xsb.split("\n"))
    return "\n".join([*rows, PICTURE_LEGEND])


def vocabulary(rows: int, cols: int, style: str, encoding: str) -> tuple[str, ...]:
    """Every word of a style for rooms up to ``rows`` x ``cols`` (border included), and the four
    actions.

    For ``coordinates`` (free text) only the actions: its words come from the demonstrations.
    """
    words: dict[str, None] = dict.fromkeys(ACTIONS)
    if style == "grid":
        words |= dict.fromkeys(("#", "_", "O", "X", "P", "√", "S", "Nothing", "happened."))
    if style == "relative":
        for r in range(1, rows - 1):
            for c in range(1, cols - 1):
                words |= dict.fromkeys(at_words(r, c, encoding).split())
        for kind in ("box", "goal", "wall"):
            for dr in range(3 - rows, rows - 2):
                for dc in range(3 - cols, cols - 2):
                    if kind == "goal" or (dr, dc) != (0, 0):
                        words |= dict.fromkeys(offset_words(kind, dr, dc, encoding).split())
    return tuple(words)


def instructions(style: str, encoding: str) -> str:
    """Rules and legend for a prompt."""
    texts = read_instructions(Path(__file__).parent)
    return f"{texts.rules}\n{texts.styles[encoding if style == 'relative' else style]}"
