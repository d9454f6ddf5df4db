"""Distances: by hand, against plain forward search, table against A*."""

from __future__ import annotations

import math

import pytest

from repro_rl.envs.sokoban import solver
from repro_rl.envs.sokoban.board import Layout, Room, move
from repro_rl.envs.sokoban.generator import RoomSource, Stream
from repro_rl.envs.sokoban.levels import parse_room
from repro_rl.envs.sokoban.settings import RoomSettings
from repro_rl.envs.sokoban.solver import Search, Table, best_move, distances, walk


def forward(room: Room) -> float:
    """Fewest moves by breadth-first search from the start."""
    seen, frontier, depth = {(room.player, room.boxes)}, [(room.player, room.boxes)], 0
    while frontier:
        if any(boxes == room.layout.targets for _, boxes in frontier):
            return depth
        states = [move(room.layout, *state, direction) for state in frontier for direction in range(4)]
        frontier = list(dict.fromkeys(state for state in states if state is not None and state not in seen))
        seen.update(frontier)
        depth += 1
    return math.inf


BY_HAND = [
    ("#######\n#@ $ .#\n#######", 3),  # one step, two pushes
    ("#####\n#@  #\n# $ #\n#  .#\n#####", 5),  # right, down, left, down, right
    ("######\n#    #\n# $. #\n#@   #\n######", 2),
    ("######\n#@$ .#\n#    #\n# $ .#\n######", 8),  # 2 pushes, 4 steps round, 2 pushes
    ("#####\n#$ @#\n#  .#\n#####", math.inf),  # box in a corner
    ("######\n#@$  #\n# .  #\n######", math.inf),  # box on the top wall, target below
]


@pytest.mark.parametrize(("text", "moves"), BY_HAND)
def test_known_distances(text, moves):
    room = parse_room(text)
    assert Table(room.layout)(room.player, room.boxes) == moves
    assert Search(room.layout)(room.player, room.boxes) == moves
    assert forward(room) == moves


def random_rooms(count: int, boxes: int, size: int) -> list[Room]:
    """Rooms that nothing was promised about: many cannot be solved."""
    rng, rooms = Stream("solver", str(boxes), str(size)), []
    while len(rooms) < count:
        picks = rng.sample(range(size * size), 3 + 2 * boxes + 1)
        symbols = [" "] * (size * size)
        for i, cell in enumerate(picks[:-1]):
            symbols[cell] = "#" if i < 3 else "." if i < 3 + boxes else "$"
        symbols[picks[-1]] = "@"
        rows = ["#" + "".join(symbols[i * size : (i + 1) * size]) + "#" for i in range(size)]
        rooms.append(parse_room("\n".join(["#" * (size + 2), *rows, "#" * (size + 2)])))
    return rooms


@pytest.mark.parametrize(("boxes", "count", "size"), [(1, 60, 4), (2, 80, 5)])
def test_against_forward_search(boxes, count, size):
    results = [(Table(r.layout)(r.player, r.boxes), Search(r.layout)(r.player, r.boxes), forward(r))
             for r in random_rooms(count, boxes, size)]  # fmt: skip
    assert all(table == search == truth for table, search, truth in results)
    assert sum(truth < math.inf for *_, truth in results) >= 5
    assert sum(truth == math.inf for *_, truth in results) >= 5


@pytest.mark.parametrize("boxes", [1, 2, 3])
def test_plain_and_vectorised_fill_agree(boxes):
    for room in random_rooms(4, boxes, 4):
        layout = room.layout
        binomials = solver.binomial_table(layout.size, boxes)
        count = solver.state_count(layout.size, boxes)
        for limit in (None, 5):
            plain = solver.fill_plain(layout, binomials, count, limit)
            assert plain == solver.fill_vectorised(layout, binomials, count, limit)


def test_table_indices_and_states():
    layout = RoomSource(RoomSettings(boxes=2)).room("train", 0).layout
    table = Table(layout)
    indices = table.states_between(3, 5)
    assert len(indices) > 10
    for index in indices[:50]:
        player, boxes = table.state_at(int(index))
        assert boxes == tuple(sorted(set(boxes)))
        assert player not in boxes
        assert 3 <= table(player, boxes) <= 5


def test_depth_limited_table():
    layout = RoomSource(RoomSettings()).room("train", 0).layout
    full, shallow = Table(layout), Table(layout, limit=4)
    assert all(s == (f if f <= 4 else -1) for f, s in zip(full.values, shallow.values, strict=True))


@pytest.mark.parametrize("make_distances", [Table, Search])
def test_best_moves_lead_to_the_goal_in_the_stated_number(make_distances):
    for number in range(5):
        room = RoomSource(RoomSettings(boxes=2, seed=3)).room("train", number)
        known = make_distances(room.layout)
        player, boxes = room.player, room.boxes
        left = known(player, boxes)
        while boxes != room.layout.targets:
            action = best_move(room.layout, known, player, boxes)
            player, boxes = move(room.layout, player, boxes, ("up", "down", "left", "right").index(action))
            left -= 1
            assert known(player, boxes) == left
        assert left == 0
        assert best_move(room.layout, known, player, boxes) is None


def test_search_gives_none_beyond_its_node_limit():
    room = RoomSource(RoomSettings(boxes=2, solution=(8, 10))).room("train", 0)
    search = Search(room.layout, nodes=1)
    assert search(room.player, room.boxes) is None
    assert best_move(room.layout, search, room.player, room.boxes) is None


def test_large_state_spaces_are_searched_and_cached(monkeypatch):
    monkeypatch.setattr(solver, "TABLE_LIMIT", 100)
    layout = parse_room("########\n#@$   .#\n#      #\n########").layout
    assert isinstance(distances(layout), Search)
    assert distances(layout) is distances(layout)
    assert distances(layout)(0, (1,)) == 4


def test_walk():
    layout = Layout.of("#####\n#   #\n# # #\n#####")
    assert walk(layout, 0, ()) == {0: 0, 1: 1, 3: 1, 2: 2, 4: 3}
    assert walk(layout, 0, (1,)) == {0: 0, 3: 1}


def test_a_search_is_not_disturbed_by_another_that_makes_room(monkeypatch):
    """As two threads would: while one distance is looked for, another call drops all that is stored."""
    room = parse_room(BY_HAND[1][0])
    search, plain, calls = Search(room.layout), Search._search, []
    monkeypatch.setattr(solver, "_MEMO_STATES", -1)

    def interrupted(self, start, memo):
        plain(self, start, memo)
        if not calls:
            calls.append(start)
            other = next(s for s in (move(room.layout, *start, d) for d in range(4)) if s is not None)
            assert self(*other) in (4, 6)

    monkeypatch.setattr(Search, "_search", interrupted)
    assert search(room.player, room.boxes) == 5
    assert calls
