"""The ``words`` style: observations from a small closed vocabulary, and short names for commands.

For tiny models, which cannot learn in minutes to track locations and to tell "apple 2" from "apple 3" in long
texts. Only what the game has printed in this episode is used, never hidden state. An observation is one line
of

- the task: ``do:<place|two|clean|heat|cool|look>``, ``want:<object type>``, ``to <receptacle or lamp type>``
- the held object: ``hold:nothing``, ``hold:other``, ``hold:wanted`` (a goal object that still has to be
  changed) or ``hold:ready``
- the current receptacle: ``at:middle`` (none), or ``at:<type>``, then ``closed`` when it is closed;
  ``here:target`` (the goal's receptacle type), ``here:wanted`` (a goal object still to be delivered),
  ``here:other`` (any other object that can be taken), ``here:lamp``
- ``done1`` when one of two objects has been delivered
- ``failed``, before the held object, when the last command was not possible
- memory: ``known:<type>`` where a goal object was seen, ``lamp:<type>`` where the lamp was seen. Then ``new``
  and each type of which some receptacle has not been looked into. Commands use the same words, so that a
  model with tied embeddings only has to copy

A command is one word, relative to the current receptacle. A receptacle type goes to the first receptacle of
that type not looked into, else to the next one. While the second of two objects is held, it goes to the one
with the first. ``wanted`` and ``lamp`` go to a receptacle in memory. The others are ``open``, ``close``,
``take`` (a goal object), ``grab`` (any other), ``put``, ``heat``, ``cool``, ``clean`` and ``use`` (the lamp).
The full commands are accepted too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repro_rl.envs.alfworld.engine import APPLIANCES, Play
from repro_rl.files import read_yaml

_KINDS = ("place", "two", "look", *APPLIANCES)
VERBS = ("open", "close", "put", *APPLIANCES)
_FIXED = (
    *("hold:nothing", "hold:other", "hold:wanted", "hold:ready", "at:middle", "closed", "failed"),
    *("here:target", "here:wanted", "here:other", "here:lamp", "done1", "to", "new"),
    *("wanted", "lamp", "take", "grab", "use"),
    *VERBS,
)


def vocabulary() -> Iterator[str]:
    """Every word of the style, commands included, for the types that the official games have."""
    yield from _FIXED
    yield from (f"do:{kind}" for kind in _KINDS)
    types = read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, tuple[str, ...]])
    yield from (f"want:{kind.lower()}" for kind in types["pickupable"])
    yield from map(str.lower, types["lamps"])
    for kind in types["receptacles"]:
        name = kind.lower()
        yield from (name, f"at:{name}", f"known:{name}", f"lamp:{name}")


@dataclass(slots=True, frozen=True)
class _Known:
    """What the commands and the observation of one state need."""

    # target receptacle -> goal objects seen in it; empty for tasks that change an object
    delivered: dict[int, set[int]]
    wanted: list[int]  # receptacles with a goal object that is still to be delivered, in order
    lamps: list[int]  # receptacles with the lamp, in order
    take: list[int]  # goal objects that can be taken from the current receptacle
    grab: list[int]  # the other objects that can


class Words:
    """Translates observations and commands of one episode; stores what the game has printed."""

    def __init__(self, play: Play):
        self._play = play
        game = play.game
        self._types = [kind.lower() for kind in game.receptacle_types]
        # "cabinet 1" has the last id of its type, so receptacles are sorted by their printed number.
        self._order = sorted(range(len(game.receptacles)), key=lambda r: int(game.receptacles[r].split()[-1]))
        self._by_type: dict[str, list[int]] = {}  # type -> its receptacles, in order
        for r in self._order:
            self._by_type.setdefault(self._types[r], []).append(r)
        self._goal_objects = {o for o, kind in enumerate(game.object_types) if kind == game.goal.object_type}
        self._target = "" if game.goal.kind == "look" else game.goal.receptacle_type.lower()
        self._lamps = {
            o
            for o, kind in enumerate(game.object_types)
            if game.goal.kind == "look" and kind == game.goal.receptacle_type
        }
        self._focus = -1  # the current receptacle: the last one of a command, -1 none
        self._contents: dict[int, set[int]] = {}  # receptacle -> objects last seen in it
        self._failed = False
        self._known: _Known | None = None  # of the present state; computed once

    # Memory

    def update(self, parsed: tuple[str, int, int] | None) -> None:
        """Store what the game printed for a command, as ``Play.possible_commands`` parses it (None: failed).

        Call once after every step.
        """
        self._known = None
        self._failed = parsed is None
        if parsed is not None and parsed[0] != "slice" and parsed[2] >= 0:
            self._focus = parsed[2]
        r = self._focus
        if parsed is not None and r >= 0 and self._play.is_open(r):
            self._contents[r] = set(self._play.contents(r))

    def _knowledge(self) -> _Known:
        if self._known is None:
            play, goal_objects = self._play, self._goal_objects
            delivered = self._delivered()
            seen = [(r, self._contents[r]) for r in self._order if r in self._contents]
            here = play.contents(self._focus) if play.is_open(self._focus) else ()
            takeable = [o for o in here if play.has("pickupable", o)]
            self._known = _Known(
                delivered=delivered,
                wanted=[r for r, o in seen if r not in delivered and (o & goal_objects) - {play.held}],
                lamps=[r for r, o in seen if o & self._lamps],
                take=[o for o in takeable if o in goal_objects],
                grab=[o for o in takeable if o not in goal_objects],
            )
        return self._known

    def _delivered(self) -> dict[int, set[int]]:
        if self._play.game.goal.kind not in ("place", "two"):
            return {}
        return {
            r: objects
            for r, items in self._contents.items()
            if self._types[r] == self._target and (objects := items & self._goal_objects)
        }

    def _resolve(self, destination: str) -> int:
        """The receptacle that ``destination`` (a type, "wanted" or "lamp") means; -1 when there is none."""
        if destination in ("wanted", "lamp"):
            known = self._knowledge()
            candidates = known.wanted if destination == "wanted" else known.lamps
            return next((r for r in candidates if r != self._focus), -1)
        same = self._by_type.get(destination, [])
        if destination == self._target and self._play.held in self._goal_objects:
            delivered = self._knowledge().delivered
            for r in same:
                if r in delivered:
                    return -1 if r == self._focus else r
        for r in same:
            if r not in self._contents and r != self._focus:
                return r
        if self._focus in same:  # the next one, cyclically
            start = same.index(self._focus) + 1
            same = same[start:] + same[: start - 1]
        return same[0] if same else -1

    # Commands

    def full_command(self, action: str) -> str:
        """The full command of a short name; any other text is returned unchanged."""
        play, game, r = self._play, self._play.game, self._focus
        if action in self._types or action in ("wanted", "lamp"):
            return self._approach(self._resolve(action))
        if action in ("take", "grab"):
            choice = self._knowledge().take if action == "take" else self._knowledge().grab
            return f"take {game.objects[choice[0]]} from {game.receptacles[r]}" if choice else ""
        if action == "use":
            lamps = self._lamps & set(play.contents(r))
            return f"use {game.objects[min(lamps)]}" if lamps else ""
        if action not in VERBS:
            return action
        if r < 0 or (play.held < 0 and action not in ("open", "close")):
            return ""
        name = game.receptacles[r]
        if action in ("open", "close"):
            return f"{action} {name}"
        held = game.objects[play.held]
        return f"move {held} to {name}" if action == "put" else f"{action} {held} with {name}"

    def _approach(self, r: int) -> str:
        """The command that makes ``r`` the current receptacle: "examine" at this location, else "go to"."""
        if r < 0:
            return ""
        game = self._play.game
        verb = "examine" if game.receptacle_locations[r] == self._play.at else "go to"
        return f"{verb} {game.receptacles[r]}"

    def admissible(self) -> list[str]:
        """Short names of the commands that are possible here."""
        possible = self._play.possible_commands()
        # Every receptacle can be approached, so destinations need no check against the possible commands.
        destinations = [name for name in (*self._by_type, "wanted", "lamp") if self._resolve(name) >= 0]
        verbs = [name for name in (*VERBS, "take", "grab", "use") if self.full_command(name) in possible]
        return destinations + verbs

    def short_name(self, command: str) -> str:
        """The short name of a planner's command; for another receptacle, the next step towards it."""
        focus = self._focus
        verb, item, r = self._play.possible_commands()[command]
        if r >= 0 and r != focus:
            for destination in ("wanted", "lamp"):
                if self._resolve(destination) == r:
                    return destination
            if focus >= 0 and self._types[focus] == self._types[r] and not self._play.is_open(focus):
                return "open"
            return self._types[r]
        if verb == "take":
            return "take" if item in self._goal_objects else "grab"
        if verb == "use":
            return "use" if item in self._lamps else command
        return "put" if verb == "move" else verb

    # Observations

    def _held(self) -> str:
        play, kind = self._play, self._play.game.goal.kind
        if play.held < 0:
            return "nothing"
        if play.held not in self._goal_objects:
            return "other"
        return "wanted" if kind in APPLIANCES and not play.has(APPLIANCES[kind][2], play.held) else "ready"

    def observe(self) -> tuple[str, str]:
        """(observation, brief): the brief leaves out task and memory."""
        goal, play, known = self._play.game.goal, self._play, self._knowledge()
        task = [f"do:{goal.kind}", f"want:{goal.object_type.lower()}", "to", goal.receptacle_type.lower()]
        now = ["failed"] if self._failed else []
        now.append(f"hold:{self._held()}")
        r = self._focus
        now.append("at:middle" if r < 0 else f"at:{self._types[r]}")
        if r >= 0 and not play.is_open(r):
            now.append("closed")
        if r >= 0 and self._types[r] == self._target:
            now.append("here:target")
        if known.take and r not in known.delivered:
            now.append("here:wanted")
        if known.grab:
            now.append("here:other")
        if self._lamps & self._contents.get(r, set()):
            now.append("here:lamp")
        if goal.kind == "two" and known.delivered:
            now.append("done1")
        memory = [f"known:{self._types[r]}" for r in known.wanted[:1]]
        memory += [f"lamp:{self._types[r]}" for r in known.lamps[:1]]
        fresh = {kind for r, kind in enumerate(self._types) if r not in self._contents}
        memory += ["new", *sorted(fresh)] if fresh else []
        return " ".join(task + now + memory), " ".join(now)
