"""A native engine for ALFWorld: the rules, texts and win condition of the original one (TextWorld)."""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterable, Sequence

from repro_rl.envs.alfworld.game import Game

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
APPLIANCES = {  # verb: (receptacle types, property required, property gained, property lost)
    "heat": (("Microwave",), "heatable", "isHot", "isCool"),
    "clean": (("Sink", "SinkBasin"), "cleanable", "isClean", None),
    "cool": (("Fridge",), "coolable", "isCool", "isHot"),
}
_PUT = re.compile(r"(?:move (.+) to|put (.+) (?:in/on|in|on)) (.+)")
_KNIVES = ("Knife", "ButterKnife")


def listed(names: Iterable[str]) -> str:
    """``a cup 1, a mug 2, and a pan 1``; ``nothing`` for none."""
    items = [f"a {name}" for name in names]
    if len(items) < 2:
        return items[0] if items else "nothing"
    return f"{', '.join(items[:-1])}, and {items[-1]}"


class Play:
    """The state of one game in progress. Only ``act`` changes it.

    ``version`` "0.3" differs in three points: the command ``put O in/on R`` instead of ``move O to R``, the
    text ``You arrive at loc N`` instead of ``You arrive at R``, and no ``help``.
    """

    __slots__ = (
        "_commands",
        "_contents",
        "_flags",
        "_object_locations",
        "_state_flags",
        "_state_inside",
        "_taken_from",
        "at",
        "game",
        "held",
        "inside",
        "older",
        "opened",
    )

    def __init__(self, game: Game, version: str = "0.4"):
        self.game = game
        self.older = version == "0.3"  # texts and commands of version 0.3
        self.at = game.start  # the agent's location
        self.held = -1  # the held object, -1 none
        self.opened = set(game.opened)  # receptacles
        self.inside = [set(receptacles) for receptacles in game.inside]  # per object: receptacles
        self._object_locations = [set(locations) for locations in game.object_locations]
        # (object, receptacle it was taken from), until it is put back there
        self._taken_from: set[tuple[int, int]] = set()
        self._commands: dict[str, tuple[str, int, int]] | None = None  # computed once per state
        self._flags = {predicate: set(objects) for predicate, objects in game.flags.items()}
        self._contents: list[list[int]] = [[] for _ in game.receptacles]  # ``inside``, by receptacle
        for o, receptacles in enumerate(game.inside):
            for r in receptacles:
                self._contents[r].append(o)
        # The two long parts of ``state``, written again only when they have changed.
        self._state_inside: str | None = None
        self._state_flags: str | None = None

    # State

    def here(self) -> list[int]:
        """Receptacles at the agent's location."""
        return [r for r, location in enumerate(self.game.receptacle_locations) if location == self.at]

    def is_open(self, receptacle: int) -> bool:
        return receptacle not in self.game.openable or receptacle in self.opened

    def contents(self, receptacle: int) -> Sequence[int]:
        """Objects in or on ``receptacle``, in order; none for -1, no receptacle. Not to be changed."""
        return self._contents[receptacle] if receptacle >= 0 else ()

    def has(self, predicate: str, item: int) -> bool:
        return item in self._flags[predicate]

    def state(self) -> str:
        """The state as text: equal texts are equal states."""
        if self._state_flags is None:
            self._state_flags = str({name: sorted(items) for name, items in self._flags.items()})
        if self._state_inside is None:
            self._state_inside = str([sorted(receptacles) for receptacles in self.inside])
        whole = f"{self._state_inside} {self._state_flags}"
        return f"{self.at} {self.held} {sorted(self.opened)} {whole} {sorted(self._taken_from)}"

    def won(self) -> bool:
        goal, game = self.game.goal, self.game
        if goal.kind == "look":
            lit = any(
                game.object_types[o] == goal.receptacle_type
                and self.has("toggleable", o)
                and self.has("isToggled", o)
                and any(game.receptacle_locations[r] == self.at for r in self.inside[o])
                for o in range(len(game.objects))
            )
            return lit and self.held >= 0 and game.object_types[self.held] == goal.object_type
        changed: tuple[str, ...] = ()
        if goal.kind in APPLIANCES:
            _, required, gained, _ = APPLIANCES[goal.kind]
            changed = (required, gained)
        candidates = [
            o
            for o, kind in enumerate(game.object_types)
            if kind == goal.object_type and all(self.has(p, o) for p in changed)
        ]
        count = 2 if goal.kind == "two" else 1
        return any(
            sum(r in self.inside[o] for o in candidates) >= count
            for r, kind in enumerate(game.receptacle_types)
            if kind == goal.receptacle_type
        )

    # Commands

    def possible_commands(self) -> dict[str, tuple[str, int, int]]:
        """Every possible command -> (verb, object or -1, receptacle or -1)."""
        if self._commands is not None:
            return self._commands
        game, held = self.game, self.held
        possible = dict(self._approaches())
        for r in self.here():
            name = game.receptacles[r]
            possible[f"examine {name}"] = ("examine", -1, r)
            if r in game.openable:
                verb = "close" if r in self.opened else "open"
                possible[f"{verb} {name}"] = (verb, -1, r)
            for o in self.contents(r):
                if self.has("toggleable", o):
                    possible[f"use {game.objects[o]}"] = ("use", o, r)
                if held < 0 and self.has("pickupable", o) and self.is_open(r):
                    possible[f"take {game.objects[o]} from {name}"] = ("take", o, r)
            if held < 0:
                continue
            if self.is_open(r) and (game.receptacle_types[r], game.object_types[held]) in game.fits:
                possible[self.put_command(held, r)] = ("move", held, r)
            for verb, (kinds, required, _, _) in APPLIANCES.items():
                if game.receptacle_types[r] in kinds and self.has(required, held):
                    possible[f"{verb} {game.objects[held]} with {name}"] = (verb, held, r)
        if held >= 0:
            possible[f"examine {game.objects[held]}"] = ("examine", held, -1)
            if game.object_types[held] in _KNIVES:
                for o in range(len(game.objects)):
                    if self.has("sliceable", o) and self.at in self._object_locations[o]:
                        possible[f"slice {game.objects[o]} with {game.objects[held]}"] = ("slice", o, held)
        self._commands = possible
        return possible

    def _approaches(self) -> dict[str, tuple[str, int, int]]:
        """The possible commands that depend on the location alone; cached with the game."""
        game, key = self.game, (self.older, self.at)
        if key not in game.approaches:
            always = ("look", "inventory") if self.older else ("look", "inventory", "help")
            found = {verb: (verb, -1, -1) for verb in always}
            places = zip(game.receptacles, game.receptacle_locations, strict=True)
            far = ((r, name) for r, (name, location) in enumerate(places) if location != self.at)
            game.approaches[key] = found | {f"go to {name}": ("go", -1, r) for r, name in far}
        return game.approaches[key]

    def put_command(self, item: int, receptacle: int) -> str:
        """The command that puts ``item`` into or onto ``receptacle``."""
        return self._put_text(self.game.objects[item], self.game.receptacles[receptacle])

    def _put_text(self, object_name: str, receptacle_name: str) -> str:
        if self.older:
            return f"put {object_name} in/on {receptacle_name}"
        return f"move {object_name} to {receptacle_name}"

    def normalized(self, command: str) -> str:
        """``command`` in this version's form: the other version's put command is accepted as well."""
        match = _PUT.fullmatch(command)
        return command if match is None else self._put_text(match[1] or match[2], match[3])

    def admissible(self) -> list[str]:
        return sorted(self.possible_commands())

    def act(self, command: str) -> str | None:
        """Execute ``command`` and return the printed text; None when it is not possible (nothing changes)."""
        parsed = self.possible_commands().get(command.strip())
        if parsed is None:
            return None
        self._commands = None
        verb, item, receptacle = parsed
        game = self.game
        if verb == "look":
            return self.look()
        if verb == "inventory":
            return self._carrying()
        if verb == "help":
            return HELP
        if verb == "go":
            self.at = game.receptacle_locations[receptacle]
            arrival = game.location_names[self.at] if self.older else game.receptacles[receptacle]
            return f"You arrive at {arrival}. {self._inside_text(receptacle)}"
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
            self._state_flags = None
            return f"You turn on the {game.objects[item]}."
        if verb == "take":
            self.held = item
            self.inside[item].discard(receptacle)
            self._contents[receptacle].remove(item)
            self._state_inside = None
            self._taken_from.add((item, receptacle))
            self._object_locations[item].discard(self.at)
            return f"You pick up the {game.objects[item]} from the {game.receptacles[receptacle]}."
        if verb == "move":
            self.held = -1
            if receptacle not in self.inside[item]:  # it is still there where it was in two
                insort(self._contents[receptacle], item)
            self.inside[item].add(receptacle)
            self._state_inside = None
            self._taken_from.discard((item, receptacle))
            self._object_locations[item].add(self.at)
            verb, to = ("put", "in/on") if self.older else ("move", "to")
            return f"You {verb} the {game.objects[item]} {to} the {game.receptacles[receptacle]}."
        if verb == "slice":
            self._flags["isSliced"].add(item)
            self._state_flags = None
            return f"You sliced the {game.objects[item]} with the {game.objects[receptacle]}."
        _, _, gained, lost = APPLIANCES[verb]
        self._flags[gained].add(item)
        self._state_flags = None
        if lost:
            self._flags[lost].discard(item)
        return f"You {verb} the {game.objects[item]} using the {game.receptacles[receptacle]}."

    # Texts

    def intro(self) -> str:
        """The first text: welcome, room, task."""
        names = listed(self.game.receptacles)
        room = f"You are in the middle of a room. Looking quickly around you, you see {names}."
        return f"{WELCOME}\n\n{room}\n\n{self.game.task}"

    def look(self) -> str:
        here = self.here()
        if not here:
            return "You are in the middle of a room. Looking quickly around you, you see nothing."
        # The text means objects on the floor. The original engine lists objects that were moved between
        # receptacles of one location, and lists an object twice that was taken from two of them.
        beside = sorted(o for o, r in self._taken_from if r in here and self.at in self._object_locations[o])
        facing = _and([self.game.receptacles[r] for r in here])
        names = listed(self.game.objects[o] for o in beside)
        return f"You are facing the {facing}. Next to it, you see {names}."

    def room(self) -> str:
        """All that the agent can see from where it is: for people, no text of the original."""
        here = self.here()
        places = f"In this room: {', '.join(self.game.receptacles)}."
        seen = (
            [self.look(), *map(self._inside_text, here)] if here else ["You are in the middle of the room."]
        )
        return "\n".join([self.game.task, places, *seen, self._carrying()])

    def _carrying(self) -> str:
        if self.held < 0:
            return "You are not carrying anything."
        return f"You are carrying: a {self.game.objects[self.held]}."

    def _inside_text(self, receptacle: int) -> str:
        name = self.game.receptacles[receptacle]
        if not self.is_open(receptacle):
            return f"The {name} is closed."
        contents = listed(self.game.objects[o] for o in self.contents(receptacle))
        if receptacle in self.game.openable:
            return f"The {name} is open. In it, you see {contents}."
        return f"On the {name}, you see {contents}."

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
