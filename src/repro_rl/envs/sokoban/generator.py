"""Seeded room generator.

The settings alone decide between two kinds of layout and two ways to draw the start state:

* Layout. An open room (interior up to 36 cells) has a few random inner walls and random targets. A carved
  room (larger) is a random walk with the stamps of gym-sokoban (github.com/mpSchrader/gym-sokoban) through
  rock.
* Start. It is drawn from the exact distance table of the layout, among the states whose shortest solution has
  a length within ``solution``. Where the table would be too large, it comes from reverse play (random pulls
  from the solved room), checked by A*.

A room is a pure function of (settings, split, number). The sha256 of a layout's canonical text decides
its split, whatever the seed, so splits share no layout up to rotation and reflection.
"""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache

from repro_rl.envs.draws import IntegerDraws
from repro_rl.envs.sokoban.board import Layout, Room, State, canonical
from repro_rl.envs.sokoban.settings import RoomSettings
from repro_rl.envs.sokoban.solver import Search, Table, distances, state_count, walk
from repro_rl.errors import ConfigError

SPLITS: tuple[str, ...] = ("train", "validation", "test")
SPLIT_SHARES: tuple[float, ...] = (0.70, 0.82, 1.0)  # cumulative
_TABLE_STATES = 150_000  # states of a layout up to which starts are drawn from a distance table
_CHECK_NODES = 5_000  # nodes that A* may expand when a reverse-played room is checked
_MAX_DRAWS = 20_000  # draws without a new room after which the settings count as exhausted


class Stream(IntegerDraws):
    """Random integers by splitmix64, the same on every machine and in every version of every library."""

    def __init__(self, *parts: str):
        self._state = int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:8], "little")

    def below(self, bound: int) -> int:
        self._state = state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return ((state ^ (state >> 31)) * bound) >> 64


def split_of(layout_text: str) -> str:
    """The split a layout belongs to, by the sha256 of its canonical text."""
    digest = hashlib.sha256(canonical(layout_text).encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2.0**64
    return next(split for split, bound in zip(SPLITS, SPLIT_SHARES, strict=True) if share < bound)


class RoomSource:
    """The rooms of one RoomSettings, generated on first access. Thread-safe; shared by all environments of a
    process."""

    def __init__(self, settings: RoomSettings):
        self.settings = settings
        self._rooms: dict[str, list[Room]] = {split: [] for split in SPLITS}
        self._streams = {split: Stream("sokoban-1", settings.name, split) for split in SPLITS}
        self._seen: set[str] = set()  # canonical rooms; layouts of different splits cannot collide
        self._split_of: dict[str, str] = {}
        self._exhausted: set[str] = set()
        self._lock = threading.Lock()
        typical = settings.cells - settings.walls[0] if settings.open else settings.cells // 2
        self._tabulate = state_count(typical, settings.boxes) <= _TABLE_STATES

    def room(self, split: str, number: int) -> Room:
        """Room ``number`` (from 0) of a split. Raises ConfigError when the settings do not yield that
        many."""
        rooms = self._rooms[split]
        if number >= len(rooms):
            with self._lock:
                while number >= len(rooms):
                    rooms.append(self._next(split))
        return rooms[number]

    def _next(self, split: str) -> Room:
        stream = self._streams[split]
        for _ in range(0 if split in self._exhausted else _MAX_DRAWS):
            layout = self._layout(stream, split)
            if layout is None:
                continue
            state = self._from_table(layout, stream) if self._tabulate else self._reverse_play(layout, stream)
            if state is None:
                continue
            room = Room(layout, *state)
            key = canonical(room.text)
            if key not in self._seen:
                self._seen.add(key)
                return room
        self._exhausted.add(split)  # permanent: the set of rooms must not depend on the number of requests
        count = len(self._rooms[split])
        raise ConfigError(
            f"Sokoban: {self.settings.name} yields no more than about {count} different {split} rooms. Ask "
            f"for fewer ({split}_rooms), widen walls or solution, enlarge the room, or change the number of "
            f"boxes."
        )

    def _layout(self, stream: Stream, split: str) -> Layout | None:
        """A random layout, or None when it belongs to another split or is not connected."""
        text = self._open(stream) if self.settings.open else self._carved(stream)
        if text is None:
            return None
        layout_split = self._split_of.get(text)
        if layout_split is None:
            layout_split = split_of(text)
            if self.settings.open:  # carved layouts hardly ever repeat
                self._split_of[text] = layout_split
        if layout_split != split:
            return None
        layout = Layout.of(text)
        return layout if layout.connected() else None

    def _open(self, stream: Stream) -> str:
        settings = self.settings
        walls = stream.between(*settings.walls)
        picks = stream.sample(range(settings.cells), walls + settings.boxes)
        symbols = [" "] * settings.cells
        for i, cell in enumerate(picks):
            symbols[cell] = "#" if i < walls else "."
        width = settings.cols - 2
        inner = ["".join(symbols[r * width : (r + 1) * width]) for r in range(settings.rows - 2)]
        border = "#" * settings.cols
        return "\n".join([border, *(f"#{line}#" for line in inner), border])

    def _carved(self, stream: Stream) -> str | None:
        settings = self.settings
        rows, cols = settings.rows, settings.cols
        cells = [["#"] * cols for _ in range(rows)]
        r, c = stream.between(1, rows - 2), stream.between(1, cols - 2)
        direction = stream.below(4)
        for _ in range(17 * (rows + cols) // 10):
            if stream.below(100) < 35:
                direction = stream.below(4)
            dr, dc = ((1, 0), (-1, 0), (0, 1), (0, -1))[direction]
            r, c = min(max(r + dr, 1), rows - 2), min(max(c + dc, 1), cols - 2)
            for sr, sc in stream.pick(_STAMPS):
                if 1 <= r + sr <= rows - 2 and 1 <= c + sc <= cols - 2:
                    cells[r + sr][c + sc] = " "
        floor = [(y, x) for y in range(rows) for x in range(cols) if cells[y][x] == " "]
        if len(floor) < 2 * settings.boxes + 1:
            return None
        for y, x in stream.sample(floor, settings.boxes):
            cells[y][x] = "."
        return "\n".join("".join(line) for line in cells)

    def _from_table(self, layout: Layout, stream: Stream) -> State | None:
        """A uniformly drawn state whose distance lies within ``solution``, with no box on a target."""
        count = state_count(layout.size, len(layout.targets))
        shared = distances(layout) if count < 5_000 else None  # large ones only as deep as needed
        table = shared if isinstance(shared, Table) else Table(layout, limit=self.settings.solution[1])
        indices = table.states_between(*self.settings.solution)
        for _ in range(8 if len(indices) else 0):
            player, boxes = table.state_at(int(indices[stream.below(len(indices))]))
            if not any(box in layout.targets for box in boxes):
                return player, boxes
        return None

    def _reverse_play(self, layout: Layout, stream: Stream) -> State | None:
        """A state reached by random pulls from the solved room.

        By construction it is solvable within the upper end of ``solution``. A* checks the lower end, unless
        it runs out of nodes.
        """
        low, high = self.settings.solution
        search = Search(layout, _CHECK_NODES)
        for _ in range(10):
            state = _play_backwards(layout, stream, stream.between(low, high))
            if state is None or any(box in layout.targets for box in state[1]):
                continue
            fewest = search(*state)
            if fewest is None or low <= fewest <= high:
                return state
        return None


_STAMPS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0, -1), (0, 0), (0, 1)),
    ((-1, 0), (0, 0), (1, 0)),
    ((0, -1), (0, 0), (1, 0)),
    ((0, -1), (0, 0), (1, -1), (1, 0)),
    ((0, 0), (0, 1), (1, 0)),
)


def _play_backwards(layout: Layout, stream: Stream, length: int) -> State | None:
    """Undo up to ``length`` moves from the solved room. None when no box could be pulled."""
    boxes = layout.targets
    free = [cell for cell in range(layout.size) if cell not in boxes]
    player, spent, pulled_any = stream.pick(free), 0, False
    while True:
        reach = walk(layout, player, boxes)
        pulls = [
            (steps, cell, direction)
            for cell, steps in reach.items()
            for direction in range(4)
            if layout.moves[direction][cell] in boxes
            and layout.moves[direction ^ 1][cell] not in boxes
            and layout.moves[direction ^ 1][cell] >= 0
            and spent + steps + 1 <= length
        ]
        if not pulls:
            break
        steps, cell, direction = stream.pick(pulls)
        spent += steps
        for _ in range(stream.between(1, 4)):
            back = layout.moves[direction ^ 1][cell]
            if back < 0 or back in boxes or spent >= length:
                break
            box = layout.moves[direction][cell]
            boxes = tuple(sorted([cell if b == box else b for b in boxes]))
            cell, spent, pulled_any = back, spent + 1, True
        player = cell
    if not pulled_any:
        return None
    rest = [cell for cell, steps in walk(layout, player, boxes).items() if steps <= length - spent]
    return stream.pick(rest), boxes


@lru_cache(maxsize=32)
def room_source(settings: RoomSettings) -> RoomSource:
    """The one RoomSource of these settings in this process."""
    return RoomSource(settings)
