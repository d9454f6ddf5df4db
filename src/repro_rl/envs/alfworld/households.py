"""Generated households: ALFWorld games in the official file format, made without the official files.

A room number decides a layout: which furniture stands where. A game draws a room, lays objects into it and
asks for one of the six official tasks. The rooms of ``train`` and ``valid_seen`` are the same, those
of ``valid_unseen`` are others. A game is a pure function of (split, number, seed), and every game can be won.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, TypeVar

from repro_rl.envs.alfworld import household_tables as tables
from repro_rl.envs.alfworld.engine import APPLIANCES, Play
from repro_rl.envs.alfworld.game import MADE_BY, MANGLED, game_from
from repro_rl.envs.alfworld.household_rules import DOMAIN, grammar
from repro_rl.envs.alfworld.plan import commands, shortest
from repro_rl.errors import TaskError

SPLITS = ("train", "valid_seen", "valid_unseen")
TASK_TYPES = tuple(tables.TASKS)
SEEN_ROOMS = 80  # of each kind: 1..80 are train's and valid_seen's, the rest up to ROOMS valid_unseen's
ROOMS = 99
RECEPTACLES = (10, 30)
OBJECTS = (20, 60)
COMMANDS = (3, 14)
_ATTEMPTS = 1000
_PLACE, _LOOK, _TWO = TASK_TYPES[0], TASK_TYPES[1], TASK_TYPES[5]

T = TypeVar("T")
Point = tuple[int, int, int]  # x, height, z in cm from the middle of the room


@dataclass(slots=True, frozen=True)
class Household:
    """One generated game."""

    id: str  # such as "train/pick_two_obj_and_place-Book-None-Desk-312/trial_0123456789abcdef"
    task_type: str
    data: dict[str, Any]  # the JSON value of a game file


@dataclass(slots=True, frozen=True)
class _Thing:
    """A receptacle or a fixture, and where one stands to use it."""

    kind: str
    raw: str  # mangled id
    place: str  # mangled location
    at: Point


@dataclass(slots=True, frozen=True)
class _Layout:
    kind: str  # a key of tables.ROOMS
    number: int
    receptacles: tuple[_Thing, ...]
    fixtures: tuple[_Thing, ...]
    start: str  # mangled location where no receptacle is


class _Draw:
    """Draws that are the same on every machine and Python version: only ``random()`` is used."""

    def __init__(self, name: str):
        self._random = random.Random(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")).random

    def between(self, low: int, high: int) -> int:
        return low + int(self._random() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        return items[self.between(0, len(items) - 1)]


def household(split: str, number: int, seed: int = 0) -> Household:
    """Game ``number`` of ``split``. Raises TaskError when there is no such split or number."""
    if split not in SPLITS:
        raise TaskError(f"no split {split!r}: there are {', '.join(SPLITS)}")
    if number < 0:
        raise TaskError(f"no household {number}: numbers start at 0")
    task_type = TASK_TYPES[number % len(TASK_TYPES)]
    name = f"household {split} {number} {seed}"
    trial = f"trial_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    for attempt in range(_ATTEMPTS):
        made = _attempt(split, task_type, trial, _Draw(f"{name} {attempt}"))
        if made is not None:
            return made
    raise TaskError(f"no household was found for {split} {number} with seed {seed}")


def _attempt(split: str, task_type: str, trial: str, draw: _Draw) -> Household | None:
    """One try; None when the game has the wrong size or cannot be won in a fair number of commands."""
    kind = draw.pick(_room_kinds(task_type))
    first, last = (1, SEEN_ROOMS) if split != "valid_unseen" else (SEEN_ROOMS + 1, ROOMS)
    layout = _layout(kind, draw.between(first, last))
    options = _options(task_type, layout)
    if not options:
        return None
    wanted = draw.pick(tuple(options))
    target = draw.pick(options[wanted])
    objects = _objects(task_type, layout, wanted, target, draw)
    if objects is None:
        return None
    task = tables.TASKS[task_type]
    sentence = draw.pick(task.sentences).format(o=wanted.lower(), r=target.lower())
    data: dict[str, Any] = {
        "made_by": MADE_BY,
        "pddl_domain": DOMAIN,
        "grammar": grammar(f"Your task is to: {sentence}"),
        "pddl_problem": _problem(trial, layout, objects, task.goal.format(o=wanted, r=target)),
        "solvable": True,
    }
    folder = f"{task_type}-{wanted}-None-{target}-{layout.number}"
    play = Play(game_from(data, folder))
    stops = shortest(play)
    if not stops:  # cannot be won, or is won before it begins
        return None
    walkthrough = list(commands(play, stops))
    if not COMMANDS[0] <= len(walkthrough) <= COMMANDS[1]:
        return None
    return Household(f"{split}/{folder}/{trial}", task_type, {**data, "walkthrough": walkthrough})


# Types: what fits where, what can be asked


@cache
def _homes(kind: str) -> tuple[str, ...]:
    return tuple(tables.HOMES[kind].split())


@cache
def _fits(receptacle: str) -> tuple[str, ...]:
    """Object types that can be put into a receptacle type."""
    found = {kind for kind in tables.HOMES if receptacle in _homes(kind)}
    return tuple(sorted((found | {*tables.ALSO_FITS.get(receptacle, "").split()}) - tables.FIXED))


@cache
def _having(predicate: str) -> frozenset[str]:
    return frozenset(tables.PROPERTIES[predicate].split())


@cache
def _room_kinds(task_type: str) -> tuple[str, ...]:
    """Rooms that have what a task needs."""
    needed = {tables.LAMP} if task_type == _LOOK else set()
    if verb := tables.TASKS[task_type].verb:
        needed = {APPLIANCES[verb][0][-1]}
    rooms = tables.ROOMS.items()
    return tuple(kind for kind, room in rooms if needed <= room.furniture.keys() | room.objects.keys())


@lru_cache(maxsize=4096)
def _options(task_type: str, layout: _Layout) -> dict[str, tuple[str, ...]]:
    """What can be asked in a room: object type -> receptacle types, or the lamp."""
    present = {thing.kind for thing in layout.receptacles}
    wanted = [
        kind
        for kind in tables.ROOMS[layout.kind].objects
        if kind not in tables.FIXED | tables.NEVER_GOALS and present & {*_homes(kind)}
    ]
    if task_type == _LOOK:
        return dict.fromkeys(wanted, (tables.LAMP,)) if present & {*_homes(tables.LAMP)} else {}
    appliance = ""
    if verb := tables.TASKS[task_type].verb:
        kinds, needs, _, _ = APPLIANCES[verb]
        appliance = kinds[-1]
        wanted = [kind for kind in wanted if kind in _having(needs)] if appliance in present else []
    found = {
        kind: tuple(
            target
            for target in sorted(present - {appliance})
            if kind in _fits(target)
            and present & {*_homes(kind)} - {target}
            and not (task_type == _TWO and tables.FURNITURE[target].single)
        )
        for kind in wanted
    }
    return {kind: targets for kind, targets in found.items() if targets}


# Layouts


@lru_cache(maxsize=1024)
def _layout(kind: str, number: int) -> _Layout:
    """Room ``number`` of a kind: the same in every split and for every seed."""
    room = tables.ROOMS[kind]
    draw = _Draw(f"room {room.base + number}")
    while True:
        counts = {name: draw.between(*span) for name, span in room.furniture.items()}
        if RECEPTACLES[0] <= sum(counts.values()) <= RECEPTACLES[1]:
            break
    width, depth = draw.between(14, 24), draw.between(14, 24)  # in steps of 25 cm
    taken: set[str] = set()
    receptacles: list[_Thing] = []
    fixtures: list[_Thing] = []
    for name, count in counts.items():
        stand = _stand(draw, width, depth)
        for i in range(count):
            piece = tables.FURNITURE[name]
            if i and draw.between(1, 100) > piece.together:
                stand = _stand(draw, width, depth)
            whole = tables.BASINS.get(name)
            thing = _thing(draw, whole or name, stand, (piece.low, piece.high), taken)
            if whole:
                fixtures.append(thing)
                thing = _Thing(name, f"{thing.raw}_bar_{name}", thing.place, thing.at)
            receptacles.append(thing)
    fixtures += [
        _thing(draw, name, _stand(draw, width, depth), (60, 200), taken)
        for name, span in room.fixtures.items()
        for _ in range(draw.between(*span))
    ]
    # No receptacle is looked at with the head at 30 degrees, so none is at the start.
    start = _mangled(f"loc|{draw.between(-2, 2)}|{draw.between(-2, 2)}|{draw.between(0, 3)}|30")
    return _Layout(kind, room.base + number, tuple(receptacles), tuple(fixtures), start)


def _stand(draw: _Draw, width: int, depth: int) -> tuple[int, int, int]:
    """A spot two steps off a wall, in steps from the middle, and the wall one faces there."""
    wall = draw.between(0, 3)
    x, z = draw.between(2, width - 2), draw.between(2, depth - 2)
    x, z = ((x, depth - 2), (width - 2, z), (x, 2), (2, z))[wall]
    return x - width // 2, z - depth // 2, wall


def _thing(
    draw: _Draw, kind: str, stand: tuple[int, int, int], heights: tuple[int, int], taken: set[str]
) -> _Thing:
    x, z, wall = stand
    ahead_x, ahead_z = ((0, 50), (50, 0), (0, -50), (-50, 0))[wall]
    at, raw = _spot(draw, kind, (25 * x + ahead_x, 0, 25 * z + ahead_z), 30, heights, taken)
    horizon = 60 if at[1] < 50 else 45 if at[1] < 150 else -30
    return _Thing(kind, raw, _mangled(f"loc|{x}|{z}|{wall}|{horizon}"), at)


def _spot(
    draw: _Draw, kind: str, near: Point, reach: int, heights: tuple[int, int], taken: set[str]
) -> tuple[Point, str]:
    """A point near another and the id of something of this type there, which nothing else has."""
    while True:
        x, z = (near[i] + draw.between(-reach, reach) for i in (0, 2))
        at = (x, draw.between(*heights), z)
        raw = _mangled("|".join([kind, *map(_metres, at)]))
        if raw not in taken:
            taken.add(raw)
            return at, raw


def _metres(cm: int) -> str:
    return f"{'-' if cm < 0 else '+'}{abs(cm) // 100:02d}.{abs(cm) % 100:02d}"


def _mangled(raw: str) -> str:
    for mangled, symbol in MANGLED:
        raw = raw.replace(symbol, mangled)
    return raw


# Objects


def _objects(
    task_type: str, layout: _Layout, wanted: str, target: str, draw: _Draw
) -> list[tuple[_Thing, _Thing]] | None:
    """Objects and the receptacles they lie in; None when they are too many or too few."""
    counts = {kind: draw.between(*span) for kind, span in tables.ROOMS[layout.kind].objects.items()}
    counts[wanted] = max(counts[wanted], 2 if task_type == _TWO else 1)
    if target == tables.LAMP:
        counts[tables.LAMP] = 1
    if not OBJECTS[0] <= sum(counts.values()) + len(layout.fixtures) <= OBJECTS[1]:
        return None
    avoided = target if task_type in (_PLACE, _TWO) else ""
    taken: set[str] = set()
    free: dict[str, list[_Thing]] = {}
    for thing in layout.receptacles:
        free.setdefault(thing.kind, []).append(thing)
    lying: list[tuple[_Thing, _Thing]] = []
    for kind, count in counts.items():
        for _ in range(count):
            homes = [h for h in _homes(kind) if free.get(h) and not (kind == wanted and h == avoided)]
            if not homes:
                break
            home = draw.pick(homes)
            receptacle = draw.pick(free[home])
            if tables.FURNITURE[home].single:
                free[home].remove(receptacle)
            height = receptacle.at[1]
            at, raw = _spot(draw, kind, receptacle.at, 20, (height + 2, height + 12), taken)
            lying.append((_Thing(kind, raw, receptacle.place, at), receptacle))
    return lying if len(lying) + len(layout.fixtures) >= OBJECTS[0] else None


# PDDL


def _problem(trial: str, layout: _Layout, lying: list[tuple[_Thing, _Thing]], goal: str) -> str:
    objects = [thing for thing, _ in lying] + list(layout.fixtures)
    otypes = {f"{thing.kind}Type" for thing in objects} | tables.OTYPES
    rtypes = {f"{thing.kind}Type" for thing in layout.receptacles} | tables.RTYPES
    named = {
        "otype": sorted(otypes),
        "rtype": sorted(rtypes),
        "object": sorted(thing.raw for thing in objects),
        "receptacle": sorted(thing.raw for thing in layout.receptacles),
        "location": sorted({t.place for t in (*objects, *layout.receptacles)} | {layout.start}),
    }
    names = ["agent1 - agent", *(f"{raw} - {kind}" for kind, raws in named.items() for raw in raws)]
    facts = "\n    ".join(f"({fact})" for fact in _facts(layout, lying, objects, otypes))
    body = "\n    ".join(names)
    return (
        f"(define (problem plan_{trial})\n  (:domain alfred)\n  (:objects\n    {body})\n"
        f"  (:init\n    {facts})\n  (:goal (and\n    {goal})))\n"
    )


def _facts(
    layout: _Layout,
    lying: list[tuple[_Thing, _Thing]],
    objects: Iterable[_Thing],
    otypes: Iterable[str],
) -> Iterator[str]:
    for thing in layout.receptacles:
        yield f"receptacleType {thing.raw} {thing.kind}Type"
        yield f"receptacleAtLocation {thing.raw} {thing.place}"
        if tables.FURNITURE[thing.kind].openable:
            yield f"openable {thing.raw}"
    for thing in objects:
        yield f"objectType {thing.raw} {thing.kind}Type"
        yield f"objectAtLocation {thing.raw} {thing.place}"
        for predicate in tables.PROPERTIES:
            if thing.kind in _having(predicate):
                yield f"{predicate} {thing.raw}"
    for thing, receptacle in lying:
        yield f"inReceptacle {thing.raw} {receptacle.raw}"
        if thing.kind not in tables.FIXED:
            yield f"pickupable {thing.raw}"
    for kind in sorted({thing.kind for thing in layout.receptacles}):
        yield from (f"canContain {kind}Type {inner}Type" for inner in _fits(kind) if f"{inner}Type" in otypes)
    yield from tables.TYPE_FACTS
    yield f"atLocation agent1 {layout.start}"
