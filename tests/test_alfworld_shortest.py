"""Plan lengths against exhaustive search: a breadth-first search of its own over small random games.

The search knows the rules as they stand in the PDDL domain, not the engine and not the planner.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from repro_rl.envs.alfworld.engine import Play
from repro_rl.envs.alfworld.game import Game, Goal, game_from
from repro_rl.envs.alfworld.households import household
from repro_rl.envs.alfworld.plan import commands, length, shortest

KINDS = ("place", "two", "clean", "heat", "cool", "look")
BOXES = ("Drawer", "Shelf", "SinkBasin", "Microwave", "Fridge")
THINGS = ("Cup", "Egg", "DeskLamp")
LIMIT = 10_000  # states; a game that has more is passed over


@dataclass(frozen=True, slots=True)
class State:
    at: int
    held: int
    opened: frozenset[int]
    inside: tuple[frozenset[int], ...]
    hot: frozenset[int]
    cool: frozenset[int]
    clean: frozenset[int]
    lit: frozenset[int]


def small_game(kind: str, rng: random.Random) -> Game:
    """Three or four receptacles, two to four objects, at random; it may be impossible to win."""
    types = sorted(rng.choices(BOXES, k=rng.randint(3, 4)))
    if kind in ("clean", "heat", "cool") and rng.random() < 0.9:
        types[0] = {"clean": "SinkBasin", "heat": "Microwave", "cool": "Fridge"}[kind]
        types.sort()
    things = sorted(["Cup", *rng.choices(THINGS, k=rng.randint(1, 3))])
    if kind == "look" and rng.random() < 0.9:
        things = sorted([*things[:-1], "DeskLamp"])
    if kind == "two" and rng.random() < 0.9:
        things = sorted([*things[:-1], "Cup", "Cup"][-4:])
    number = len(types)
    places = tuple(rng.randint(1, number) for _ in types)
    openable = frozenset(r for r in range(number) if rng.random() < 0.5)
    inside = [frozenset(rng.sample(range(number), 2 if rng.random() < 0.1 else 1)) for _ in things]
    objects = range(len(things))
    every = frozenset(objects)

    def some(share: float) -> frozenset[int]:
        return frozenset(o for o in objects if rng.random() < share)

    lamps = frozenset(o for o in objects if things[o] == "DeskLamp")
    return Game(
        name="small",
        task="",
        goal=Goal(kind, "Cup", "DeskLamp" if kind == "look" else rng.choice(types)),
        start=0,
        receptacles=tuple(f"{name} {r}" for r, name in enumerate(types)),
        receptacle_types=tuple(types),
        places=places,
        place_names=tuple(f"loc {place}" for place in range(number + 1)),
        openable=openable,
        opened=frozenset(r for r in openable if rng.random() < 0.3),
        objects=tuple(f"{name} {o}" for o, name in enumerate(things)),
        object_types=tuple(things),
        object_places=tuple(frozenset(places[r] for r in where) for where in inside),
        inside=tuple(inside),
        contents=tuple(() for _ in things),
        flags={
            "pickupable": every - lamps if rng.random() < 0.8 else some(0.7),
            "cleanable": some(0.9),
            "heatable": some(0.9),
            "coolable": some(0.9),
            "toggleable": lamps,
            "sliceable": frozenset(),
            "isReceptacleObject": frozenset(),
            "isClean": some(0.1),
            "isHot": some(0.1),
            "isCool": frozenset(),
            "isSliced": frozenset(),
            "isToggled": lamps & some(0.1),
        },
        fits=frozenset((r, o) for r in BOXES for o in THINGS if rng.random() < 0.8),
    )


def first_state(game: Game) -> State:
    flags = (game.flags[name] for name in ("isHot", "isCool", "isClean", "isToggled"))
    return State(game.start, -1, game.opened, game.inside, *flags)


def next_states(game: Game, now: State) -> Iterator[State]:
    def changed(**what: object) -> State:
        values = {name: getattr(now, name) for name in State.__slots__}
        return State(**{**values, **what})  # type: ignore[arg-type]

    held = now.held
    for r, place in enumerate(game.places):
        if place != now.at:
            yield changed(at=place)
            continue
        shut = r in game.openable and r not in now.opened
        if r in game.openable:
            yield changed(opened=now.opened | {r} if shut else now.opened - {r})
        for o, where in enumerate(now.inside):
            if r not in where:
                continue
            if o in game.flags["toggleable"]:
                yield changed(lit=now.lit | {o})
            if held < 0 and not shut and o in game.flags["pickupable"]:
                yield changed(held=o, inside=(*now.inside[:o], where - {r}, *now.inside[o + 1 :]))
        if held < 0:
            continue
        if not shut and (game.receptacle_types[r], game.object_types[held]) in game.fits:
            there = now.inside[held] | {r}
            yield changed(held=-1, inside=(*now.inside[:held], there, *now.inside[held + 1 :]))
        kind = game.receptacle_types[r]
        if kind == "SinkBasin" and held in game.flags["cleanable"]:
            yield changed(clean=now.clean | {held})
        if kind == "Microwave" and held in game.flags["heatable"]:
            yield changed(hot=now.hot | {held}, cool=now.cool - {held})
        if kind == "Fridge" and held in game.flags["coolable"]:
            yield changed(cool=now.cool | {held}, hot=now.hot - {held})


def reached(game: Game, now: State) -> bool:
    goal = game.goal
    wanted = {o for o, kind in enumerate(game.object_types) if kind == goal.object_type}
    if goal.kind == "look":
        lit = (o for o in now.lit if game.object_types[o] == "DeskLamp" and o in game.flags["toggleable"])
        return now.held in wanted and any(game.places[r] == now.at for o in lit for r in now.inside[o])
    if goal.kind in ("clean", "heat", "cool"):
        flag = {"clean": now.clean, "heat": now.hot, "cool": now.cool}[goal.kind]
        wanted &= flag & game.flags[f"{goal.kind}able"]
    targets = (r for r, kind in enumerate(game.receptacle_types) if kind == goal.receptacle_type)
    return any(sum(r in now.inside[o] for o in wanted) >= (2 if goal.kind == "two" else 1) for r in targets)


def distance(game: Game, start: State) -> int | None:
    """Commands to the goal; None when it cannot be reached. Raises MemoryError beyond LIMIT states."""
    seen, layer, steps = {start}, [start], 0
    while layer:
        if any(reached(game, state) for state in layer):
            return steps
        found = {after for state in layer for after in next_states(game, state)} - seen
        seen |= found
        if len(seen) > LIMIT:
            raise MemoryError
        layer, steps = list(found), steps + 1
    return None


def state_of(play: Play) -> State:
    """What the engine holds after some commands, as the search knows it."""
    every = range(len(play.game.objects))
    flags = (
        frozenset(o for o in every if play.has(name, o))
        for name in ("isHot", "isCool", "isClean", "isToggled")
    )
    return State(play.at, play.held, frozenset(play.opened), tuple(map(frozenset, play.inside)), *flags)


def compare(kind: str, games: int, seed: int) -> Counter[str]:
    """Compare at the start of each game and after some random commands."""
    counts: Counter[str] = Counter()
    rng = random.Random(f"{kind} {seed}")
    for _ in range(games):
        game = small_game(kind, rng)
        play = Play(game)
        assert state_of(play) == first_state(game)
        for wandering in (0, rng.randint(1, 8)):
            for _ in range(wandering):
                play.act(rng.choice(play.admissible()))
            try:
                true = distance(game, state_of(play))
            except MemoryError:
                counts["too large"] += 1
                continue
            plan = shortest(play)
            assert (None if plan is None else length(play, plan)) == true, (game, state_of(play))
            counts["cannot be won" if true is None else "won" if not true else "same"] += 1
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_plans_are_as_short_as_exhaustive_search_finds(kind: str) -> None:
    counts = compare(kind, games=6, seed=0)
    assert counts["same"] + counts["won"] + counts["cannot be won"] >= 10
    assert counts["same"]


def test_every_command_of_a_plan_is_possible_and_brings_it_one_nearer() -> None:
    """On noisy walks through households; also with one of the wanted objects in the hand and others about,
    where a plan must not take a second one first."""
    rng = random.Random(0)
    carried = checked = 0
    for number in range(40):
        home = household("train", number)
        play = Play(game_from(home.data, home.id))
        wanted = {o for o, kind in enumerate(play.game.object_types) if kind == play.game.goal.object_type}
        for _ in range(20):
            plan = shortest(play)
            if not plan:
                break  # won, or a dead end
            left, command = length(play, plan), next(commands(play, plan))
            assert command in play.moves(), (home.id, command)
            after = copy.deepcopy(play)
            after.act(command)
            rest = shortest(after)
            assert rest is not None
            assert length(after, rest) == left - 1, (home.id, command)
            checked += 1
            carried += play.held in wanted and len(wanted) > 1
            takes = [c for c, (verb, o, _) in play.moves().items() if verb == "take" and o in wanted]
            play.act(rng.choice(takes or [command, *rng.sample(play.admissible(), 2)]))
    assert checked > 300
    assert carried > 100
