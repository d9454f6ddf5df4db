"""Exact distances to the goal, in player moves.

Small state spaces: one backward breadth-first search from every solved state gives the distance of every
state of a layout. Large ones: an A* search over pushes for each room, with dead-cell pruning and a node
limit.
"""

from __future__ import annotations

import heapq
import math
import threading
from array import array
from collections import OrderedDict
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from repro_rl.envs.sokoban.board import ACTIONS, Layout, State, move

TABLE_LIMIT = 400_000  # states of a layout up to which all distances are tabulated
SEARCH_NODES = 20_000  # nodes one A* search may expand
_NUMPY_FROM = 1_500  # states from which the vectorised search is the faster one
_CACHE_BYTES = 64 << 20  # estimated size of all cached Distances
_MEMO_STATES = 100_000  # states with a stored distance, per Search


class Distances(Protocol):
    """Moves to the goal for the states of one layout."""

    def __call__(self, player: int, boxes: tuple[int, ...]) -> float | None:
        """Fewest moves to a solved state; ``inf`` when there is none; None when the search ran out of
        nodes."""

    def stored(self, player: int, boxes: tuple[int, ...]) -> float | None:
        """The same, without starting a search; None also when the distance was not computed yet."""


def state_count(cells: int, boxes: int) -> int:
    """States (player cell x box set, overlaps counted) of a room with ``cells`` floor cells."""
    return cells * math.comb(cells, boxes)


@lru_cache(maxsize=256)
def binomial_table(cells: int, boxes: int) -> tuple[tuple[int, ...], ...]:
    """(boxes, cells): C(cell, i + 1), the summands of the rank of a box set."""
    return tuple(tuple(math.comb(c, i + 1) for c in range(cells)) for i in range(boxes))


class Table:
    """Distances of all states of a layout. ``values``: int16, N * C(N, k); -1 = no solution (or not a state).

    The index of a state is ``rank(boxes) * N + player``, rank = sum of C(box_i, i + 1) over the ascending
    boxes.
    """

    __slots__ = ("_binomials", "_size", "values")

    def __init__(self, layout: Layout, limit: int | None = None):
        self._size = layout.size
        self._binomials = binomial_table(layout.size, len(layout.targets))
        count = state_count(layout.size, len(layout.targets))
        fill = fill_vectorised if count >= _NUMPY_FROM else fill_plain
        self.values: array[int] = fill(layout, self._binomials, count, limit)

    def __call__(self, player: int, boxes: tuple[int, ...]) -> float | None:
        rank = 0
        for row, box in zip(self._binomials, boxes, strict=False):
            rank += row[box]
        value = self.values[rank * self._size + player]
        return value if value >= 0 else math.inf

    stored = __call__

    def states_between(self, low: int, high: int) -> npt.NDArray[np.int64]:
        """Indices of the states whose distance lies within low..high, ascending."""
        values = np.frombuffer(self.values, dtype=np.int16)
        return np.flatnonzero((values >= low) & (values <= high))

    def state_at(self, index: int) -> State:
        """The state at an index of the table."""
        rank, player = divmod(index, self._size)
        boxes = []
        for row in reversed(self._binomials):
            box = next(c for c in range(self._size - 1, -1, -1) if row[c] <= rank)
            rank -= row[box]
            boxes.append(box)
        return player, tuple(reversed(boxes))


def fill_plain(
    layout: Layout, binomials: tuple[tuple[int, ...], ...], count: int, limit: int | None
) -> array[int]:
    """Backward breadth-first search in plain Python; the faster one for a few hundred states."""
    size = layout.size
    values = array("h", [-1]) * count
    # Per player cell p: (cell the player came from, cell of a box that it would have pushed).
    up, down, left, right = layout.moves
    pulls = [
        [
            (back[p], ahead[p])
            for back, ahead in ((down, up), (up, down), (right, left), (left, right))
            if back[p] >= 0
        ]
        for p in range(size)
    ]
    goal = layout.targets
    base = size * sum(row[box] for row, box in zip(binomials, goal, strict=True))
    frontier = [(p, goal, base) for p in range(size) if p not in goal]
    for p, _, _ in frontier:
        values[base + p] = 0
    depth = 0
    while frontier and depth != limit:
        depth += 1
        following = []
        for p, boxes, base in frontier:
            for back, ahead in pulls[p]:
                if back in boxes:
                    continue
                if values[base + back] < 0:
                    values[base + back] = depth
                    following.append((back, boxes, base))
                if ahead in boxes:
                    pulled = tuple(sorted([p if box == ahead else box for box in boxes]))
                    rank = 0
                    for row, box in zip(binomials, pulled, strict=True):
                        rank += row[box]
                    if values[rank * size + back] < 0:
                        values[rank * size + back] = depth
                        following.append((back, pulled, rank * size))
        frontier = following
    return values


def fill_vectorised(
    layout: Layout, binomials: tuple[tuple[int, ...], ...], count: int, limit: int | None
) -> array[int]:
    """The same search, one frontier at a time in numpy."""
    size, kinds = layout.size, np.arange(len(layout.targets))
    ranks = np.array(binomials, dtype=np.int64)  # (k, N)
    moves = np.array(layout.moves, dtype=np.int64)  # (4, N)
    values = np.full(count, -1, dtype=np.int16)
    player = np.array([p for p in range(size) if p not in layout.targets], dtype=np.int64)
    boxes = np.tile(np.array(layout.targets, dtype=np.int64), (len(player), 1))  # (n, k), rows ascending
    values[ranks[kinds, boxes].sum(1) * size + player] = 0
    depth = 0
    while len(player) and depth != limit:
        depth += 1
        players, box_sets = [], []
        for direction in range(4):
            back = moves[direction ^ 1][player]
            ahead = moves[direction][player]
            free = (back >= 0) & ~(boxes == back[:, None]).any(1)
            hit = boxes == ahead[:, None]  # a wall is -1 and matches no box
            pull = free & hit.any(1)
            pulled = np.sort(np.where(hit[pull], player[pull][:, None], boxes[pull]), axis=1)
            for before, after in ((back[free], boxes[free]), (back[pull], pulled)):
                indices = ranks[kinds, after].sum(1) * size + before
                indices, first = np.unique(indices, return_index=True)
                new = values[indices] < 0
                values[indices[new]] = depth
                players.append(before[first[new]])
                box_sets.append(after[first[new]])
        player, boxes = np.concatenate(players), np.concatenate(box_sets)
    filled = array("h")
    filled.frombytes(values.tobytes())
    return filled


Memo = dict[State, float | None]  # distances; None: unknown


class Search:
    """Distances by A* from the requested state; the distances along every plan are stored.

    The cost is the number of moves, so plans are optimal. A search that expands more than ``nodes`` nodes
    gives None (unknown). A box on a cell from which no target can be reached gives ``inf`` without a search.
    """

    def __init__(self, layout: Layout, nodes: int = SEARCH_NODES):
        self.layout, self.nodes = layout, nodes
        self._pushes = _push_distances(layout)  # per cell: pushes to the nearest target, inf = dead cell
        self._memo: Memo = {}

    def stored(self, player: int, boxes: tuple[int, ...]) -> float | None:
        if boxes == self.layout.targets:
            return 0
        return self._memo.get((player, boxes))

    def __call__(self, player: int, boxes: tuple[int, ...]) -> float | None:
        if boxes == self.layout.targets:
            return 0
        state, memo = (player, boxes), self._memo
        if state not in memo:
            if len(memo) > _MEMO_STATES:
                memo = self._memo = {}  # not cleared: another thread may be reading the old one
            self._search(state, memo)
        return memo[state]

    def _bound(self, state: State, memo: Memo) -> float:
        exact = memo.get(state)
        return exact if exact is not None else sum(self._pushes[box] for box in state[1])

    def _search(self, start: State, memo: Memo) -> None:
        """Store the distance of ``start`` in ``memo``."""
        cost: dict[State, int] = {start: 0}
        parent: dict[State, State] = {}
        heap = [(self._bound(start, memo), 0, 0, start)]
        closed: dict[State, int] = {}
        expanded = order = 0
        if heap[0][0] == math.inf:
            memo[start] = math.inf
            return
        while heap:
            _, _, so_far, state = heapq.heappop(heap)
            if closed.get(state, so_far + 1) <= so_far:
                continue
            closed[state] = so_far
            player, boxes = state
            if boxes == self.layout.targets:
                self._store_plan(start, state, parent, memo)
                return
            expanded += 1
            if expanded > self.nodes:
                memo[start] = None
                return
            reach = walk(self.layout, player, boxes)
            for cell, steps in reach.items():
                for direction in range(4):
                    box = self.layout.moves[direction][cell]
                    if box < 0 or box not in boxes:
                        continue
                    pushed = move(self.layout, cell, boxes, direction)
                    if pushed is None:
                        continue
                    total = so_far + steps + 1
                    if total < cost.get(pushed, total + 1):
                        bound = self._bound(pushed, memo)
                        if bound < math.inf:
                            cost[pushed], parent[pushed] = total, state
                            order -= 1  # the newest first among equals: depth before breadth
                            heapq.heappush(heap, (total + bound, order, total, pushed))
        memo[start] = math.inf

    def _store_plan(self, start: State, end: State, parent: dict[State, State], memo: Memo) -> None:
        """Store the distance of every state, walking steps included, on the plan from start to end."""
        memo[end] = distance = 0.0
        while end != start:
            before = parent[end]
            player, boxes = before
            (origin,) = set(boxes) - set(end[1])
            # the player stands on the box's old cell; it pushed from the cell behind that
            (arrived,) = set(end[1]) - set(boxes)
            direction = next(d for d in range(4) if self.layout.moves[d][origin] == arrived)
            cell = self.layout.moves[direction ^ 1][origin]
            distance += 1
            memo[(cell, boxes)] = distance
            reach = walk(self.layout, player, boxes)
            while cell != player:
                neighbours = (row[cell] for row in self.layout.moves)
                cell = next(n for n in neighbours if n >= 0 and reach.get(n, -1) == reach[cell] - 1)
                distance += 1
                memo[(cell, boxes)] = distance
            end = before


def walk(layout: Layout, player: int, boxes: tuple[int, ...]) -> dict[int, int]:
    """Steps to every cell the player can walk to without pushing, nearest first."""
    steps = {player: 0}
    queue = [player]
    for cell in queue:
        for row in layout.moves:
            to = row[cell]
            if to >= 0 and to not in steps and to not in boxes:
                steps[to] = steps[cell] + 1
                queue.append(to)
    return steps


def _push_distances(layout: Layout) -> list[float]:
    """Per cell, the pushes a lone box needs to the nearest target; ``inf`` marks a dead cell."""
    pushes = [math.inf] * layout.size
    queue = list(layout.targets)
    for target in queue:
        pushes[target] = 0
    for cell in queue:
        for direction in range(4):
            before = layout.moves[direction ^ 1][cell]
            if before >= 0 and layout.moves[direction ^ 1][before] >= 0 and pushes[before] == math.inf:
                pushes[before] = pushes[cell] + 1
                queue.append(before)
    return pushes


_cache: OrderedDict[str, tuple[Distances, int]] = OrderedDict()
_cache_bytes = 0
_cache_lock = threading.Lock()


def distances(layout: Layout) -> Distances:
    """The distances of a layout: a Table up to TABLE_LIMIT states, else a Search. In a process-wide LRU
    cache."""
    global _cache_bytes
    with _cache_lock:
        hit = _cache.get(layout.text)
        if hit is not None:
            _cache.move_to_end(layout.text)
            return hit[0]
    count = state_count(layout.size, len(layout.targets))
    made: Distances = Table(layout) if count <= TABLE_LIMIT else Search(layout)
    cost = 2 * count + 1_000 if count <= TABLE_LIMIT else 4 << 20
    with _cache_lock:
        if layout.text not in _cache:
            _cache[layout.text] = (made, cost)
            _cache_bytes += cost
            while _cache_bytes > _CACHE_BYTES and len(_cache) > 1:
                _cache_bytes -= _cache.popitem(last=False)[1][1]
        return _cache[layout.text][0]


def best_move(layout: Layout, moves_left: Distances, player: int, boxes: tuple[int, ...]) -> str | None:
    """The first move (order: up, down, left, right) of an optimal plan.

    None when the state is solved, cannot be solved, or its distance is unknown.
    """
    here = moves_left(player, boxes)
    if not here or here == math.inf:
        return None
    for direction, action in enumerate(ACTIONS):
        after = move(layout, player, boxes, direction)
        if after is not None and moves_left.stored(*after) == here - 1:
            return action
    return None
