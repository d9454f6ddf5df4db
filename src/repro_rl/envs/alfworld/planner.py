"""Shortest plans from the true state, exact.

Every walk costs one command, whatever the distance. For every choice of object, receptacle it is taken from,
appliance and target, the stops are fixed. The cost is then a sum: one command for each change of location,
one for each receptacle that is still closed, and the actions themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from repro_rl.envs.alfworld.engine import APPLIANCES, Play


@dataclass(slots=True, frozen=True)
class Stop:
    """One action of a plan, and the receptacle at which it is done."""

    verb: str  # take, move, use, heat, clean, cool, or wait (no action, but the agent must be there)
    item: int  # object number
    receptacle: int  # receptacle number


def _actions(play: Play, stops: Sequence[Stop]) -> Iterator[tuple[str, Stop]]:
    """(verb, stop) of every command of ``stops``, walking and opening included."""
    game, at, opened = play.game, play.at, set(play.opened)
    for stop in stops:
        r = stop.receptacle
        if game.receptacle_locations[r] != at:
            at = game.receptacle_locations[r]
            yield "go", stop
        if stop.verb in ("take", "move") and r in game.openable and r not in opened:
            opened.add(r)
            yield "open", stop
        if stop.verb != "wait":
            yield stop.verb, stop


def commands(play: Play, stops: Sequence[Stop]) -> Iterator[str]:
    """The commands that carry out ``stops``, walking and opening included."""
    for verb, stop in _actions(play, stops):
        item, name = play.game.objects[stop.item], play.game.receptacles[stop.receptacle]
        yield {
            "go": f"go to {name}",
            "open": f"open {name}",
            "take": f"take {item} from {name}",
            "move": play.put_command(stop.item, stop.receptacle),
            "use": f"use {item}",
        }.get(verb, f"{verb} {item} with {name}")


def length(play: Play, stops: Sequence[Stop]) -> int:
    """The number of commands of ``stops``."""
    return sum(1 for _ in _actions(play, stops))


def shortest(play: Play) -> list[Stop] | None:
    """A shortest plan as its stops; empty when won, None when there is none."""
    if play.won():
        return []
    best: tuple[int, list[Stop]] | None = None
    for stops in _plans(play):
        count = length(play, stops)
        if best is None or count < best[0]:
            best = count, stops
    return None if best is None else best[1]


def _plans(play: Play) -> Iterator[list[Stop]]:
    game, goal = play.game, play.game.goal
    goal_objects = [o for o, kind in enumerate(game.object_types) if kind == goal.object_type]
    if play.held < 0 or play.held in goal_objects:
        yield from _continuations(play, goal_objects, [], play.held)
        if play.held < 0:
            return
    # The held object may have to be put down first: try every receptacle it fits into.
    for r in _fitting(play, play.held):
        yield from _continuations(play, goal_objects, [Stop("move", play.held, r)], -1)


def _continuations(
    play: Play, goal_objects: list[int], before: list[Stop], held: int
) -> Iterator[list[Stop]]:
    """Plans that continue ``before``; ``held`` (-1 none) is then held, and must be the first object used."""
    goal = play.game.goal
    first = [held] if held >= 0 else goal_objects
    if goal.kind == "look":
        for o in first:
            for taken in _taken(play, o, before, held):
                for lamp, r in _lamps(play, before):
                    verb = "wait" if play.has("isToggled", lamp) else "use"
                    yield [*before, *taken, Stop(verb, lamp, r)]
        return
    put = {stop.item: stop.receptacle for stop in before}
    targets = [r for r, kind in enumerate(play.game.receptacle_types) if kind == goal.receptacle_type]
    for target in _distinct(play, targets, goal_objects, put):
        if goal.kind == "two":
            delivered = [o for o in goal_objects if target in play.inside[o] or put.get(o) == target]
            for pair in _missing(goal_objects, delivered, held):
                yield from _deliveries(play, pair, target, before, held)
        else:
            for o in first:
                yield from _deliveries(play, (o,), target, before, held)


def _distinct(play: Play, targets: list[int], goal_objects: list[int], put: dict[int, int]) -> list[int]:
    """One of each set of ``targets`` (of one type) that cost the same, because no other stop is there."""
    game = play.game
    kinds = APPLIANCES[game.goal.kind][0] if game.goal.kind in APPLIANCES else ()
    stops = {r for o in goal_objects for r in play.inside[o]} | {*put.values()}
    stops |= {r for r, kind in enumerate(game.receptacle_types) if kind in kinds}
    locations = {play.at, *(game.receptacle_locations[r] for r in stops)}
    chosen: dict[tuple[int, int, bool], int] = {}
    for r in targets:
        location = game.receptacle_locations[r]
        location = location if location in locations else -1
        chosen.setdefault((location, r if r in stops else -1, play.is_open(r)), r)
    return list(chosen.values())


def _missing(goal_objects: list[int], delivered: list[int], held: int) -> Iterator[tuple[int, ...]]:
    """The objects still to be delivered, in order, for a goal of two."""
    others = [o for o in goal_objects if o not in delivered]
    if held >= 0:  # the held object is delivered first
        if held in others:
            yield from ([(held,)] if delivered else ((held, o) for o in others if o != held))
    elif delivered:
        yield from ((o,) for o in others)
    else:
        yield from ((one, two) for one in others for two in others if one != two)


def _deliveries(
    play: Play, items: tuple[int, ...], target: int, before: list[Stop], held: int
) -> Iterator[list[Stop]]:
    """Take each item in turn, change it as the goal demands, and put it into ``target``."""
    game, kind = play.game, play.game.goal.kind
    partial: list[list[Stop]] = [list(before)]
    for o in items:
        fits = (game.receptacle_types[target], game.object_types[o]) in game.fits
        if not fits and target not in play.inside[o]:
            return
        changes: list[list[Stop]] = [[]]
        if kind in APPLIANCES:
            kinds, required, gained, _ = APPLIANCES[kind]
            if not play.has(required, o):
                return
            if not play.has(gained, o):
                appliances = [r for r, name in enumerate(game.receptacle_types) if name in kinds]
                changes = [[Stop(kind, o, r)] for r in appliances]
        partial = [
            [*stops, *taken, *change, *put]
            for stops in partial
            for taken in _taken(play, o, before, held)
            if (put := _put(play, o, target, taken)) == [] or fits
            for change in changes
        ]
    yield from partial


def _put(play: Play, o: int, target: int, taken: list[Stop]) -> list[Stop]:
    """The last stop; none when ``o`` is in ``target`` already.

    Some objects are in two receptacles; one that is taken from the first stays in the second.
    """
    stays = target in play.inside[o] and all(stop.receptacle != target for stop in taken)
    return [] if stays else [Stop("move", o, target)]


def _taken(play: Play, o: int, before: list[Stop], held: int) -> Iterable[list[Stop]]:
    """Ways to pick up ``o``."""
    if o == held:
        return [[]]
    put = {stop.receptacle for stop in before if stop.item == o}
    if not play.has("pickupable", o):
        return []
    return [[Stop("take", o, r)] for r in sorted(play.inside[o] | put)]


def _lamps(play: Play, before: list[Stop]) -> Iterator[tuple[int, int]]:
    """(lamp of the goal's type, receptacle it is on)."""
    game = play.game
    for o, kind in enumerate(game.object_types):
        if kind == game.goal.receptacle_type and play.has("toggleable", o):
            put = {stop.receptacle for stop in before if stop.item == o}
            yield from ((o, r) for r in sorted(play.inside[o] | put))


def _fitting(play: Play, item: int) -> list[int]:
    """Receptacles the item fits into: one of each set with the same location, type and open state."""
    game = play.game
    chosen: dict[tuple[int, bool, str], int] = {}
    for r, kind in enumerate(game.receptacle_types):
        if (kind, game.object_types[item]) in game.fits:
            chosen.setdefault((game.receptacle_locations[r], play.is_open(r), kind), r)
    return list(chosen.values())
