"""Generated households: ALFWorld games in the official file format, made without the official files.

A room number decides a layout: the furniture and its positions. A game draws a room, puts objects into it
and sets one of the six official tasks. The splits ``train`` and ``valid_seen`` share their rooms;
``valid_unseen`` has others. A game is a pure function of (split, number, seed), and every game can be won.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from repro_rl.envs.alfworld.engine import APPLIANCES, Play
from repro_rl.envs.alfworld.game import MADE_BY, MANGLED, game_from
from repro_rl.envs.alfworld.household_rules import domain, grammar
from repro_rl.envs.alfworld.household_tables import tables
from repro_rl.envs.alfworld.planner import commands, shortest
from repro_rl.envs.draws import Draws
from repro_rl.errors import TaskError

SPLITS = ("train", "valid_seen", "valid_unseen")
SEEN_ROOMS = 80  # of each kind: 1..80 are train's and valid_seen's, the rest up to ROOMS valid_unseen's
ROOMS = 99
RECEPTACLES = (10, 30)  # of a room: least, most
OBJECTS = (20, 60)  # of a game, fixtures included
COMMANDS = (3, 14)  # of a shortest plan
_ATTEMPTS = 1000
_PUT_ONE, _LOOK_AT, _PUT_TWO = "pick_and_place_simple", "look_at_obj_in_light", "pick_two_obj_and_place"

Point = tuple[int, int, int]  # x, height, z in cm from the middle of the room


@dataclass(slots=True, frozen=True)
class Household:
    """One generated game."""

    id: str  # such as "train/pick_two_obj_and_place-Book-None-Desk-312/trial_0123456789abcdef"
    task_type: str
    data: dict[str, Any]  # the JSON value of a game file


@dataclass(slots=True, frozen=True)
class _Entity:
    """A receptacle, a fixture or an object."""

    kind: str  # such as "Cabinet"
    raw: str  # mangled id
    location: str  # mangled location from which the agent uses it
    point: Point


@dataclass(slots=True, frozen=True)
class _Layout:
    """A furnished room, without objects."""

    kind: str  # a key of tables().rooms
    number: int
    receptacles: tuple[_Entity, ...]
    fixtures: tuple[_Entity, ...]
    start: str  # mangled location where no receptacle is


def _draws(name: str) -> Draws:
    return Draws(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def household(split: str, number: int, seed: int = 0) -> Household:
    """Game ``number`` of ``split``. Raises TaskError when there is no such split or number."""
    if split not in SPLITS:
        raise TaskError(f"no split {split!r}: there are {', '.join(SPLITS)}")
    if number < 0:
        raise TaskError(f"no household {number}: numbers start at 0")
    types = tuple(tables().tasks)
    task_type = types[number % len(types)]
    name = f"household {split} {number} {seed}"
    trial = f"trial_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    for attempt in range(_ATTEMPTS):
        home = _attempt(split, task_type, trial, _draws(f"{name} {attempt}"))
        if home is not None:
            return home
    raise TaskError(f"no household was found for {split} {number} with seed {seed}")


def _attempt(split: str, task_type: str, trial: str, draws: Draws) -> Household | None:
    """One try; None when the number of objects or of commands of a shortest plan is out of range."""
    kind = draws.pick(_room_kinds(task_type))
    first, last = (1, SEEN_ROOMS) if split != "valid_unseen" else (SEEN_ROOMS + 1, ROOMS)
    layout = _layout(kind, draws.between(first, last))
    options = _options(task_type, layout)
    if not options:
        return None
    object_type = draws.pick(tuple(options))
    target = draws.pick(options[object_type])
    objects = _objects(task_type, layout, object_type, target, draws)
    if objects is None:
        return None
    task = tables().tasks[task_type]
    sentence = draws.pick(task.sentences).format(o=object_type.lower(), r=target.lower())
    data: dict[str, Any] = {
        "made_by": MADE_BY,
        "pddl_domain": domain(),
        "grammar": grammar(f"Your task is to: {sentence}"),
        "pddl_problem": _problem(trial, layout, objects, task.goal.format(o=object_type, r=target)),
        "solvable": True,
    }
    folder = f"{task_type}-{object_type}-None-{target}-{layout.number}"
    play = Play(game_from(data, folder))
    stops = shortest(play)
    if not stops:  # cannot be won, or is won before it begins
        return None
    walkthrough = list(commands(play, stops))
    if not COMMANDS[0] <= len(walkthrough) <= COMMANDS[1]:
        return None
    return Household(f"{split}/{folder}/{trial}", task_type, {**data, "walkthrough": walkthrough})


# Types: what fits into what, which tasks a room allows


@cache
def _fits(receptacle: str) -> tuple[str, ...]:
    """Object types that can be put into a receptacle type."""
    fitting = {kind for kind, starts in tables().start_receptacles.items() if receptacle in starts}
    return tuple(sorted((fitting | tables().also_fits.get(receptacle, frozenset())) - tables().fixed))


@cache
def _room_kinds(task_type: str) -> tuple[str, ...]:
    """The kinds of rooms that can have what the task needs."""
    needed = {tables().lamp} if task_type == _LOOK_AT else set()
    if verb := tables().tasks[task_type].verb:
        needed = {APPLIANCES[verb][0][-1]}
    rooms = tables().rooms.items()
    return tuple(kind for kind, room in rooms if needed <= room.furniture.keys() | room.objects.keys())


@lru_cache(maxsize=4096)
def _options(task_type: str, layout: _Layout) -> dict[str, tuple[str, ...]]:
    """The possible goals of a task in a room: object type -> receptacle types, or the lamp."""
    present = {entity.kind for entity in layout.receptacles}
    starts = tables().start_receptacles
    object_types = [
        kind
        for kind in tables().rooms[layout.kind].objects
        if kind not in tables().fixed | tables().never_goals and present & {*starts[kind]}
    ]
    if task_type == _LOOK_AT:
        lamp_fits = present & {*starts[tables().lamp]}
        return dict.fromkeys(object_types, (tables().lamp,)) if lamp_fits else {}
    appliance = ""
    if verb := tables().tasks[task_type].verb:
        kinds, required, _, _ = APPLIANCES[verb]
        appliance = kinds[-1]
        changeable = tables().properties[required] if appliance in present else frozenset()
        object_types = [kind for kind in object_types if kind in changeable]
    options = {
        kind: tuple(
            target
            for target in sorted(present - {appliance})
            if kind in _fits(target)
            and present & {*starts[kind]} - {target}
            and not (task_type == _PUT_TWO and tables().furniture[target].single)
        )
        for kind in object_types
    }
    return {kind: targets for kind, targets in options.items() if targets}


# Layouts


@lru_cache(maxsize=1024)
def _layout(kind: str, number: int) -> _Layout:
    """Room ``number`` of a kind: the same in every split and for every seed."""
    room = tables().rooms[kind]
    draws = _draws(f"room {room.base + number}")
    while True:
        counts = {name: draws.between(*span) for name, span in room.furniture.items()}
        if RECEPTACLES[0] <= sum(counts.values()) <= RECEPTACLES[1]:
            break
    width, depth = draws.between(14, 24), draws.between(14, 24)  # in steps of 25 cm
    taken: set[str] = set()
    receptacles: list[_Entity] = []
    fixtures: list[_Entity] = []
    for name, count in counts.items():
        position = _position(draws, width, depth)
        for i in range(count):
            piece = tables().furniture[name]
            if i and draws.between(1, 100) > piece.together:
                position = _position(draws, width, depth)
            whole = tables().basins.get(name)
            entity = _entity(draws, whole or name, position, (piece.low, piece.high), taken)
            if whole:
                fixtures.append(entity)
                entity = _Entity(name, f"{entity.raw}_bar_{name}", entity.location, entity.point)
            receptacles.append(entity)
    fixtures += [
        _entity(draws, name, _position(draws, width, depth), (60, 200), taken)
        for name, span in room.fixtures.items()
        for _ in range(draws.between(*span))
    ]
    # No receptacle is looked at with the head at 30 degrees, so none is at the start.
    start = _mangled(f"loc|{draws.between(-2, 2)}|{draws.between(-2, 2)}|{draws.between(0, 3)}|30")
    return _Layout(kind, room.base + number, tuple(receptacles), tuple(fixtures), start)


def _position(draws: Draws, width: int, depth: int) -> tuple[int, int, int]:
    """A position two steps from a wall, in steps from the middle of the room, and the wall it faces."""
    wall = draws.between(0, 3)
    x, z = draws.between(2, width - 2), draws.between(2, depth - 2)
    x, z = ((x, depth - 2), (width - 2, z), (x, 2), (2, z))[wall]
    return x - width // 2, z - depth // 2, wall


def _entity(
    draws: Draws, kind: str, position: tuple[int, int, int], heights: tuple[int, int], taken: set[str]
) -> _Entity:
    x, z, wall = position
    ahead_x, ahead_z = ((0, 50), (50, 0), (0, -50), (-50, 0))[wall]
    point, raw = _free_point(draws, kind, (25 * x + ahead_x, 0, 25 * z + ahead_z), 30, heights, taken)
    horizon = 60 if point[1] < 50 else 45 if point[1] < 150 else -30
    return _Entity(kind, raw, _mangled(f"loc|{x}|{z}|{wall}|{horizon}"), point)


def _free_point(
    draws: Draws, kind: str, near: Point, reach: int, heights: tuple[int, int], taken: set[str]
) -> tuple[Point, str]:
    """A random point near ``near``, and the mangled id that an entity has there; added to ``taken``."""
    while True:
        x, z = (near[i] + draws.between(-reach, reach) for i in (0, 2))
        point = (x, draws.between(*heights), z)
        raw = _mangled("|".join([kind, *map(_metres, point)]))
        if raw not in taken:
            taken.add(raw)
            return point, raw


def _metres(cm: int) -> str:
    return f"{'-' if cm < 0 else '+'}{abs(cm) // 100:02d}.{abs(cm) % 100:02d}"


def _mangled(raw: str) -> str:
    for mangled, symbol in MANGLED:
        raw = raw.replace(symbol, mangled)
    return raw


# Objects


def _objects(
    task_type: str, layout: _Layout, object_type: str, target: str, draws: Draws
) -> list[tuple[_Entity, _Entity]] | None:
    """(object, its receptacle) for each object; None when there are too many or too few."""
    counts = {kind: draws.between(*span) for kind, span in tables().rooms[layout.kind].objects.items()}
    counts[object_type] = max(counts[object_type], 2 if task_type == _PUT_TWO else 1)
    if target == tables().lamp:
        counts[tables().lamp] = 1
    if not OBJECTS[0] <= sum(counts.values()) + len(layout.fixtures) <= OBJECTS[1]:
        return None
    avoided = target if task_type in (_PUT_ONE, _PUT_TWO) else ""
    taken: set[str] = set()
    free: dict[str, list[_Entity]] = {}
    for entity in layout.receptacles:
        free.setdefault(entity.kind, []).append(entity)
    placed: list[tuple[_Entity, _Entity]] = []
    for kind, count in counts.items():
        for _ in range(count):
            choices = [
                name
                for name in tables().start_receptacles[kind]
                if free.get(name) and not (kind == object_type and name == avoided)
            ]
            if not choices:
                break
            choice = draws.pick(choices)
            receptacle = draws.pick(free[choice])
            if tables().furniture[choice].single:
                free[choice].remove(receptacle)
            height = receptacle.point[1]
            point, raw = _free_point(draws, kind, receptacle.point, 20, (height + 2, height + 12), taken)
            placed.append((_Entity(kind, raw, receptacle.location, point), receptacle))
    return placed if len(placed) + len(layout.fixtures) >= OBJECTS[0] else None


# PDDL


def _problem(trial: str, layout: _Layout, placed: list[tuple[_Entity, _Entity]], goal: str) -> str:
    objects = [entity for entity, _ in placed] + list(layout.fixtures)
    otypes = {f"{entity.kind}Type" for entity in objects} | tables().otypes
    rtypes = {f"{entity.kind}Type" for entity in layout.receptacles} | tables().rtypes
    named = {
        "otype": sorted(otypes),
        "rtype": sorted(rtypes),
        "object": sorted(entity.raw for entity in objects),
        "receptacle": sorted(entity.raw for entity in layout.receptacles),
        "location": sorted({t.location for t in (*objects, *layout.receptacles)} | {layout.start}),
    }
    names = ["agent1 - agent", *(f"{raw} - {kind}" for kind, raws in named.items() for raw in raws)]
    facts = "\n    ".join(f"({fact})" for fact in _facts(layout, placed, objects, otypes))
    body = "\n    ".join(names)
    return (
        f"(define (problem plan_{trial})\n  (:domain alfred)\n  (:objects\n    {body})\n"
        f"  (:init\n    {facts})\n  (:goal (and\n    {goal})))\n"
    )


def _facts(
    layout: _Layout,
    placed: list[tuple[_Entity, _Entity]],
    objects: Iterable[_Entity],
    otypes: Iterable[str],
) -> Iterator[str]:
    for entity in layout.receptacles:
        yield f"receptacleType {entity.raw} {entity.kind}Type"
        yield f"receptacleAtLocation {entity.raw} {entity.location}"
        if tables().furniture[entity.kind].openable:
            yield f"openable {entity.raw}"
    for entity in objects:
        yield f"objectType {entity.raw} {entity.kind}Type"
        yield f"objectAtLocation {entity.raw} {entity.location}"
        for predicate, kinds in tables().properties.items():
            if entity.kind in kinds:
                yield f"{predicate} {entity.raw}"
    for entity, receptacle in placed:
        yield f"inReceptacle {entity.raw} {receptacle.raw}"
        if entity.kind not in tables().fixed:
            yield f"pickupable {entity.raw}"
    for kind in sorted({entity.kind for entity in layout.receptacles}):
        yield from (f"canContain {kind}Type {inner}Type" for inner in _fits(kind) if f"{inner}Type" in otypes)
    yield from tables().type_facts
    yield f"atLocation agent1 {layout.start}"
