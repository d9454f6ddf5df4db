"""Plan lengths against exhaustive search: a breadth-first search of its own over small random games.

The search knows the rules as they stand in the PDDL domain, not the engine and not the planner.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from repro_rl.envs.alfworld.engine import Play
from repro_rl.envs.alfworld.game import Game, Goal, game_from, read_game
from repro_rl.envs.alfworld.households import household
from repro_rl.envs.alfworld.planner import commands, length, shortest
from support.alfworld import kitchen

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
    locations = tuple(rng.randint(1, number) for _ in types)
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
        receptacle_locations=locations,
        location_names=tuple(f"loc {i}" for i in range(number + 1)),
        openable=openable,
        opened=frozenset(r for r in openable if rng.random() < 0.3),
        objects=tuple(f"{name} {o}" for o, name in enumerate(things)),
        object_types=tuple(things),
        object_locations=tuple(frozenset(locations[r] for r in where) for where in inside),
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
    for r, location in enumerate(game.receptacle_locations):
        if location != now.at:
            yield changed(at=location)
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
    goal_objects = {o for o, kind in enumerate(game.object_types) if kind == goal.object_type}
    if goal.kind == "look":
        lit = (o for o in now.lit if game.object_types[o] == "DeskLamp" and o in game.flags["toggleable"])
        return now.held in goal_objects and any(
            game.receptacle_locations[r] == now.at for o in lit for r in now.inside[o]
        )
    if goal.kind in ("clean", "heat", "cool"):
        flag = {"clean": now.clean, "heat": now.hot, "cool": now.cool}[goal.kind]
        goal_objects &= flag & game.flags[f"{goal.kind}able"]
    targets = (r for r, kind in enumerate(game.receptacle_types) if kind == goal.receptacle_type)
    count = 2 if goal.kind == "two" else 1
    return any(sum(r in now.inside[o] for o in goal_objects) >= count for r in targets)


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


def test_every_command_of_a_plan_is_possible_and_shortens_it_by_one() -> None:
    """On noisy walks through households; also while one goal object is held and others can be taken, where a
    plan must not take a second one first."""
    rng = random.Random(0)
    carried = checked = 0
    for number in range(40):
        home = household("train", number)
        play = Play(game_from(home.data, home.id))
        goal_type = play.game.goal.object_type
        goal_objects = {o for o, kind in enumerate(play.game.object_types) if kind == goal_type}
        for _ in range(20):
            plan = shortest(play)
            if not plan:
                break  # won, or a dead end
            left, command = length(play, plan), next(commands(play, plan))
            assert command in play.possible_commands(), (home.id, command)
            after = copy.deepcopy(play)
            after.act(command)
            rest = shortest(after)
            assert rest is not None
            assert length(after, rest) == left - 1, (home.id, command)
            checked += 1
            carried += play.held in goal_objects and len(goal_objects) > 1
            possible = play.possible_commands().items()
            takes = [c for c, (verb, o, _) in possible if verb == "take" and o in goal_objects]
            play.act(rng.choice(takes or [command, *rng.sample(play.admissible(), 2)]))
    assert checked > 300
    assert carried > 100


def test_the_shortest_plan_of_the_kitchen() -> None:
    play = Play(kitchen())
    plan = shortest(play)
    assert plan is not None
    # From the table no opening is needed; one for the cabinet.
    assert list(commands(play, plan)) == [
        "go to diningtable 1",
        "take apple 2 from diningtable 1",
        "go to fridge 1",
        "cool apple 2 with fridge 1",
        "go to cabinet 2",
        "open cabinet 2",
        "move apple 2 to cabinet 2",
    ]
    assert length(play, plan) == 7
    for command in ("go to diningtable 1", "take knife 1 from diningtable 1"):
        play.act(command)
    plan = shortest(play)
    assert plan is not None
    assert length(play, plan) == 7, "put the knife down, then the six that were left"


def test_official_games_are_won_by_their_plans(official: list[Path]) -> None:
    kinds: Counter[str] = Counter()
    lengths = []
    for path in official:
        play = Play(read_game(path))
        kinds[play.game.goal.kind] += 1
        plan = shortest(play)
        assert plan is not None, path
        todo = list(commands(play, plan))
        lengths.append(len(todo))
        for done, command in enumerate(todo, start=1):
            assert command in play.admissible(), (path, command)
            play.act(command)
            left = shortest(play)
            assert left is not None
            assert length(play, left) == len(todo) - done, (path, command)
        assert play.won()
    assert dict(kinds) == {"place": 46, "two": 45, "clean": 37, "cool": 28, "heat": 25, "look": 19}
    assert sum(lengths) / len(lengths) == pytest.approx(5.97)


def test_no_command_shortens_the_plan_by_more_than_one(official: list[Path]) -> None:
    """What makes the plan length a distance: every neighbour is at most one closer."""
    rng = random.Random(0)
    for path in official[::4]:
        play = Play(read_game(path))
        plan = shortest(play)
        assert plan is not None
        before = length(play, plan)
        for _ in range(30):
            command = rng.choice(play.admissible())
            play.act(command)
            plan = shortest(play)
            if plan is None:
                break  # something in the hand that fits nowhere
            after = length(play, plan)
            assert after >= before - 1, (path, command)
            before = after
            if not after:
                break


def test_an_object_in_two_receptacles_needs_no_move_into_the_one_it_stays_in() -> None:
    """It may even be one that it could not be put into; found by exhaustive search."""
    old = "(inReceptacle Apple_bar_1 DiningTable_bar_1)"
    game = kitchen(
        **{
            old: f"{old} (inReceptacle Apple_bar_1 Cabinet_bar__minus_01_bar_a)",
            "(canContain CabinetType AppleType)": "",
        }
    )
    play = Play(game)
    plan = shortest(play)
    assert plan is not None
    assert list(commands(play, plan)) == [
        "go to diningtable 1",
        "take apple 2 from diningtable 1",
        "go to fridge 1",
        "cool apple 2 with fridge 1",
    ]
