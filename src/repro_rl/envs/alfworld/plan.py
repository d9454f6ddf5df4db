"""How many actions are still needed: exact, from the true state.

Going anywhere costs one action, so only which stops coincide matters. For every choice of object, of the
receptacle it is taken from, of appliance and of target, the stops are fixed and the cost is a sum: a move
where the next stop is another location, an action for every receptacle on the way that is still closed, and
the actions themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from repro_rl.envs.alfworld.engine import APPLIANCES, Play


@dataclass(slots=True, frozen=True)
class Stop:
    """One action of a plan, and where it is done."""

    verb: str  # take, move, use, heat, clean, cool, or wait (to stand there is all)
    item: int
    receptacle: int


def _actions(play: Play, stops: Sequence[Stop]) -> Iterator[tuple[str, Stop]]:
    """(verb, stop) of every action that ``stops`` take, moves and openings included."""
    game, at, opened = play.game, play.at, set(play.opened)
    for stop in stops:
        r = stop.receptacle
        if game.places[r] != at:
            at = game.places[r]
            yield "go", stop
        if stop.verb in ("take", "move") and r in game.openable and r not in opened:
            opened.add(r)
            yield "open", stop
        if stop.verb != "wait":
            yield stop.verb, stop


def commands(play: Play, stops: Sequence[Stop]) -> Iterator[str]:
    """The commands that carry out ``stops``, moves and openings included."""
    for verb, stop in _actions(play, stops):
        item, name = play.game.objects[stop.item], play.game.receptacles[stop.receptacle]
        yield {
            "go": f"go to {name}",
            "open": f"open {name}",
            "take": f"take {item} from {name}",
            "move": play.placing(stop.item, stop.receptacle),
            "use": f"use {item}",
        }.get(verb, f"{verb} {item} with {name}")


def length(play: Play, stops: Sequence[Stop]) -> int:
    """How many commands ``stops`` take."""
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
    wanted = [o for o, kind in enumerate(game.object_types) if kind == goal.object_type]
    if play.held < 0 or play.held in wanted:
        yield from _from_free_hand(play, wanted, [], play.held)
        if play.held < 0:
            return
    # Something is in the hand that may have to go: put it down wherever that costs least.
    for r in _fitting(play, play.held):
        yield from _from_free_hand(play, wanted, [Stop("move", play.held, r)], -1)


def _from_free_hand(play: Play, wanted: list[int], before: list[Stop], held: int) -> Iterator[list[Stop]]:
    """Plans that go on after ``before``; ``held`` is then in the hand, and the first thing to be used."""
    goal = play.game.goal
    first = [held] if held >= 0 else wanted
    if goal.kind == "look":
        for o in first:
            for taken in _taken(play, o, before, held):
                for lamp, r in _lamps(play, before):
                    verb = "wait" if play.has("isToggled", lamp) else "use"
                    yield [*before, *taken, Stop(verb, lamp, r)]
        return
    put = {stop.item: stop.receptacle for stop in before}
    targets = [r for r, kind in enumerate(play.game.receptacle_types) if kind == goal.receptacle_type]
    for target in _unlike(play, targets, wanted, put):
        if goal.kind == "two":
            there = [o for o in wanted if target in play.inside[o] or put.get(o) == target]
            for pair in _missing(wanted, there, held):
                yield from _deliveries(play, pair, target, before, held)
        else:
            for o in first:
                yield from _deliveries(play, (o,), target, before, held)


def _unlike(play: Play, targets: list[int], wanted: list[int], put: dict[int, int]) -> list[int]:
    """The first of all ``targets`` (of one type) that cost the same: what else a plan does is elsewhere."""
    game = play.game
    kinds = APPLIANCES[game.goal.kind][0] if game.goal.kind in APPLIANCES else ()
    stops = {r for o in wanted for r in play.inside[o]} | {*put.values()}
    stops |= {r for r, kind in enumerate(game.receptacle_types) if kind in kinds}
    places = {play.at, *(game.places[r] for r in stops)}
    chosen: dict[tuple[int, int, bool], int] = {}
    for r in targets:
        place = game.places[r] if game.places[r] in places else -1
        chosen.setdefault((place, r if r in stops else -1, play.is_open(r)), r)
    return list(chosen.values())


def _missing(wanted: list[int], there: list[int], held: int) -> Iterator[tuple[int, ...]]:
    others = [o for o in wanted if o not in there]
    if held >= 0:  # what is in the hand goes first, and comes first
        if held in others:
            yield from ([(held,)] if there else ((held, o) for o in others if o != held))
    elif there:
        yield from ((o,) for o in others)
    else:
        yield from ((one, two) for one in others for two in others if one != two)


def _deliveries(
    play: Play, items: tuple[int, ...], target: int, before: list[Stop], held: int
) -> Iterator[list[Stop]]:
    """Fetch each item in turn, change it as the goal asks, and put it into ``target``."""
    game, kind = play.game, play.game.goal.kind
    partial: list[list[Stop]] = [list(before)]
    for o in items:
        fits = (game.receptacle_types[target], game.object_types[o]) in game.fits
        if not fits and target not in play.inside[o]:
            return
        changes: list[list[Stop]] = [[]]
        if kind in APPLIANCES:
            kinds, needs, becomes, _ = APPLIANCES[kind]
            if not play.has(needs, o):
                return
            if not play.has(becomes, o):
                places = [r for r, name in enumerate(game.receptacle_types) if name in kinds]
                changes = [[Stop(kind, o, r)] for r in places]
        partial = [
            [*stops, *taken, *change, *put]
            for stops in partial
            for taken in _taken(play, o, before, held)
            if (put := _put(play, o, target, taken)) == [] or fits
            for change in changes
        ]
    yield from partial


def _put(play: Play, o: int, target: int, taken: list[Stop]) -> list[Stop]:
    """The last move, unless ``o`` is in ``target`` too: some objects are in two receptacles, and a taken one
    stays in the other."""
    stays = target in play.inside[o] and all(stop.receptacle != target for stop in taken)
    return [] if stays else [Stop("move", o, target)]


def _taken(play: Play, o: int, before: list[Stop], held: int) -> Iterable[list[Stop]]:
    """Ways to get ``o`` into the hand."""
    if o == held:
        return [[]]
    put = {stop.receptacle for stop in before if stop.item == o}
    if not play.has("pickupable", o):
        return []
    return [[Stop("take", o, r)] for r in sorted(play.inside[o] | put)]


def _lamps(play: Play, before: list[Stop]) -> Iterator[tuple[int, int]]:
    """Lamps of the goal's type and where they stand."""
    game = play.game
    for o, kind in enumerate(game.object_types):
        if kind == game.goal.receptacle_type and play.has("toggleable", o):
            put = {stop.receptacle for stop in before if stop.item == o}
            yield from ((o, r) for r in sorted(play.inside[o] | put))


def _fitting(play: Play, item: int) -> list[int]:
    """Receptacles the item can be put into; of those alike in place, kind and lid, one is enough."""
    game = play.game
    chosen: dict[tuple[int, bool, str], int] = {}
    for r, kind in enumerate(game.receptacle_types):
        if (kind, game.object_types[item]) in game.fits:
            chosen.setdefault((game.places[r], play.is_open(r), kind), r)
    return list(chosen.values())
