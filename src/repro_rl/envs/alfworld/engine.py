"""The rules and texts of ALFWorld, played natively: what the real engine prints, allows and counts as won."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from repro_rl.envs.alfworld.game import Game

VERSIONS = ("0.4", "0.3")  # generations of ALFWorld that print and ask for different words
WELCOME = "-= Welcome to TextWorld, ALFRED! =-"
NOTHING = "Nothing happens."
HELP = """Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""
APPLIANCES = {  # verb: (receptacle types, what the object must be, what it becomes, what it stops being)
    "heat": (("Microwave",), "heatable", "isHot", "isCool"),
    "clean": (("Sink", "SinkBasin"), "cleanable", "isClean", None),
    "cool": (("Fridge",), "coolable", "isCool", "isHot"),
}
_PLACING = re.compile(r"(?:move (.+) to|put (.+) (?:in/on|in|on)) (.+)")
_KNIVES = ("Knife", "ButterKnife")


def listed(names: Iterable[str]) -> str:
    """``a cup 1, a mug 2, and a pan 1``; ``nothing`` for none."""
    items = [f"a {name}" for name in names]
    if len(items) < 2:
        return items[0] if items else "nothing"
    return f"{', '.join(items[:-1])}, and {items[-1]}"


class Play:
    """One game being played. ``act`` changes it; everything else only looks.

    ``version`` "0.3": to put something somewhere is called ``put O in/on R`` and not ``move O to R``, one
    arrives at ``loc N`` and not at ``R``, and there is no ``help``. All else is the same in both.
    """

    __slots__ = ("_flags", "_left", "_moves", "_places", "at", "game", "held", "inside", "older", "opened")

    def __init__(self, game: Game, version: str = VERSIONS[0]):
        self.game = game
        self.older = version == "0.3"
        self.at = game.start
        self.held = -1  # the object in the hand, -1 none
        self.opened = set(game.opened)
        self.inside = [set(receptacles) for receptacles in game.inside]
        self._places = [set(places) for places in game.object_places]
        self._left: set[tuple[int, int]] = set()  # (object, receptacle it was taken from), not put back there
        self._moves: dict[str, tuple[str, int, int]] | None = None  # of this state, once they were asked for
        self._flags = {predicate: set(objects) for predicate, objects in game.flags.items()}

    # What is there

    def here(self) -> list[int]:
        """Receptacles at the agent's location."""
        return [r for r, place in enumerate(self.game.places) if place == self.at]

    def is_open(self, receptacle: int) -> bool:
        return receptacle not in self.game.openable or receptacle in self.opened

    def contents(self, receptacle: int) -> list[int]:
        return [o for o, receptacles in enumerate(self.inside) if receptacle in receptacles]

    def has(self, predicate: str, item: int) -> bool:
        return item in self._flags[predicate]

    def state(self) -> str:
        """All that can change, as text: equal texts are equal states."""
        flags = {name: sorted(items) for name, items in self._flags.items()}
        inside = [sorted(receptacles) for receptacles in self.inside]
        return f"{self.at} {self.held} {sorted(self.opened)} {inside} {flags} {sorted(self._left)}"

    def won(self) -> bool:
        goal, game = self.game.goal, self.game
        if goal.kind == "look":
            lit = any(
                game.object_types[o] == goal.receptacle_type
                and self.has("toggleable", o)
                and self.has("isToggled", o)
                and any(game.places[r] == self.at for r in self.inside[o])
                for o in range(len(game.objects))
            )
            return lit and self.held >= 0 and game.object_types[self.held] == goal.object_type
        changed: tuple[str, ...] = ()
        if goal.kind in APPLIANCES:
            _, needs, becomes, _ = APPLIANCES[goal.kind]
            changed = (needs, becomes)
        wanted = [
            o
            for o, kind in enumerate(game.object_types)
            if kind == goal.object_type and all(self.has(p, o) for p in changed)
        ]
        count = 2 if goal.kind == "two" else 1
        return any(
            sum(r in self.inside[o] for o in wanted) >= count
            for r, kind in enumerate(game.receptacle_types)
            if kind == goal.receptacle_type
        )

    # What can be done

    def moves(self) -> dict[str, tuple[str, int, int]]:
        """Every possible command -> (verb, object or -1, receptacle or -1)."""
        if self._moves is not None:
            return self._moves
        game, held = self.game, self.held
        moves: dict[str, tuple[str, int, int]] = {
            "look": ("look", -1, -1),
            "inventory": ("inventory", -1, -1),
        }
        if not self.older:
            moves["help"] = ("help", -1, -1)
        for r, name in enumerate(game.receptacles):
            if game.places[r] != self.at:
                moves[f"go to {name}"] = ("go", -1, r)
                continue
            moves[f"examine {name}"] = ("examine", -1, r)
            if r in game.openable:
                verb = "close" if r in self.opened else "open"
                moves[f"{verb} {name}"] = (verb, -1, r)
            for o in self.contents(r):
                if self.has("toggleable", o):
                    moves[f"use {game.objects[o]}"] = ("use", o, r)
                if held < 0 and self.has("pickupable", o) and self.is_open(r):
                    moves[f"take {game.objects[o]} from {name}"] = ("take", o, r)
            if held < 0:
                continue
            if self.is_open(r) and (game.receptacle_types[r], game.object_types[held]) in game.fits:
                moves[self.placing(held, r)] = ("move", held, r)
            for verb, (kinds, needs, _, _) in APPLIANCES.items():
                if game.receptacle_types[r] in kinds and self.has(needs, held):
                    moves[f"{verb} {game.objects[held]} with {name}"] = (verb, held, r)
        if held >= 0:
            moves[f"examine {game.objects[held]}"] = ("examine", held, -1)
            if game.object_types[held] in _KNIVES:
                for o in range(len(game.objects)):
                    if self.has("sliceable", o) and self.at in self._places[o]:
                        moves[f"slice {game.objects[o]} with {game.objects[held]}"] = ("slice", o, held)
        self._moves = moves
        return moves

    def placing(self, item: int, receptacle: int) -> str:
        """The command that puts ``item`` into or onto ``receptacle``."""
        thing, place = self.game.objects[item], self.game.receptacles[receptacle]
        return f"put {thing} in/on {place}" if self.older else f"move {thing} to {place}"

    def understood(self, command: str) -> str:
        """``command`` as this version has it: the other version's word for putting is taken as well."""
        found = _PLACING.fullmatch(command)
        if found is None:
            return command
        thing = found[1] or found[2]
        return f"put {thing} in/on {found[3]}" if self.older else f"move {thing} to {found[3]}"

    def admissible(self) -> list[str]:
        return sorted(self.moves())

    def act(self, command: str) -> str | None:
        """Do ``command`` and return what is printed; None when it is not possible (nothing changes)."""
        move = self.moves().get(command.strip())
        if move is None:
            return None
        self._moves = None
        verb, item, receptacle = move
        game = self.game
        if verb == "look":
            return self.look()
        if verb == "inventory":
            return "You are not carrying anything." if self.held < 0 else self._carrying()
        if verb == "help":
            return HELP
        if verb == "go":
            self.at = game.places[receptacle]
            where = game.place_names[self.at] if self.older else game.receptacles[receptacle]
            return f"You arrive at {where}. {self._inside_text(receptacle)}"
        if verb == "open":
            self.opened.add(receptacle)
            return f"You open the {game.receptacles[receptacle]}. {self._inside_text(receptacle)}"
        if verb == "close":
            self.opened.discard(receptacle)
            return f"You close the {game.receptacles[receptacle]}."
        if verb == "examine":
            return self._inside_text(receptacle) if item < 0 else self._object_text(item)
        if verb == "use":
            self._flags["isToggled"].add(item)
            return f"You turn on the {game.objects[item]}."
        if verb == "take":
            self.held = item
            self.inside[item].discard(receptacle)
            self._left.add((item, receptacle))
            self._places[item].discard(self.at)
            return f"You pick up the {game.objects[item]} from the {game.receptacles[receptacle]}."
        if verb == "move":
            self.held = -1
            self.inside[item].add(receptacle)
            self._left.discard((item, receptacle))
            self._places[item].add(self.at)
            verb, to = ("put", "in/on") if self.older else ("move", "to")
            return f"You {verb} the {game.objects[item]} {to} the {game.receptacles[receptacle]}."
        if verb == "slice":
            self._flags["isSliced"].add(item)
            return f"You sliced the {game.objects[item]} with the {game.objects[receptacle]}."
        _, _, becomes, stops = APPLIANCES[verb]
        self._flags[becomes].add(item)
        if stops:
            self._flags[stops].discard(item)
        return f"You {verb} the {game.objects[item]} using the {game.receptacles[receptacle]}."

    # What is printed

    def intro(self) -> str:
        """What the real engine prints first: welcome, room, task."""
        seen = listed(self.game.receptacles)
        room = f"You are in the middle of a room. Looking quickly around you, you see {seen}."
        return f"{WELCOME}\n\n{room}\n\n{self.game.task}"

    def look(self) -> str:
        here = self.here()
        if not here:
            return "You are in the middle of a room. Looking quickly around you, you see nothing."
        # Meant is the floor; what the real engine finds is what was moved between receptacles of one place.
        # One that was taken from two of them is named twice.
        beside = sorted(o for o, r in self._left if r in here and self.at in self._places[o])
        facing = _and([self.game.receptacles[r] for r in here])
        seen = listed(self.game.objects[o] for o in beside)
        return f"You are facing the {facing}. Next to it, you see {seen}."

    def _carrying(self) -> str:
        return f"You are carrying: a {self.game.objects[self.held]}."

    def _inside_text(self, receptacle: int) -> str:
        name = self.game.receptacles[receptacle]
        if not self.is_open(receptacle):
            return f"The {name} is closed."
        seen = listed(self.game.objects[o] for o in self.contents(receptacle))
        if receptacle in self.game.openable:
            return f"The {name} is open. In it, you see {seen}."
        return f"On the {name}, you see {seen}."

    def _object_text(self, item: int) -> str:
        name = self.game.objects[item]
        if self.has("isReceptacleObject", item):
            inside = listed(self.game.objects[o] for o in self.game.contents[item])
            return f"This is a normal {name}. In it, you see {inside}."
        clean, sliced = self.has("isClean", item), self.has("isSliced", item)
        heat = "hot" if self.has("isHot", item) else "cool" if self.has("isCool", item) else ""
        if clean:
            words = f"{heat} and clean" if heat else "clean"
            return f"This is a {words}{' sliced' if sliced else ''} {name}."
        if heat:
            if sliced:
                return f"This is a {heat} sliced {name}."
            return f"This is a {'cold' if heat == 'cool' else heat} {name}."
        if self.has("toggleable", item) and self.has("isToggled", item):
            return f"This {name} is on."
        if self.has("sliceable", item) and sliced:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"
