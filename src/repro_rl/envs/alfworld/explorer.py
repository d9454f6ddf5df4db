"""An expert that knows only what the agent has seen: it searches, remembers, then plans.

It reads the printed texts (``memory.Memory``) and the admissible actions, never the state. Unlike a shortest
plan, its answers can be told from what stands before them, so a model that reads can imitate them. It looks
into plausible places first: those that usually hold the object, in as few commands as possible. Near ties are
broken by the seed, differently in every episode. It goes on from any state, whoever led there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from repro_rl.envs.alfworld.engine import APPLIANCES
from repro_rl.envs.alfworld.memory import Memory, ReadGoal, type_of
from repro_rl.files import read_yaml
from repro_rl.random_streams import name_key

OPENABLE = ("cabinet", "drawer", "fridge", "microwave", "safe")  # types that are closed at first
RARE = 0.3  # percent, for a receptacle type that the table does not name
TIE = 1.3  # plausibilities within this factor of each other are ties


@cache
def _usual_places() -> dict[str, dict[str, int]]:
    """Object type -> receptacle type -> percent of such receptacles that hold one."""
    return read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, dict[str, int]])


class Explorer:
    """The expert of one episode. ``read`` every printed text, the first one included, then ask ``next``."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.memory = Memory()
        self._admissible: frozenset[str] = frozenset()
        self._rejected: set[tuple[str, str]] = set()  # (object, place) where a put command was not possible

    def read(self, text: str) -> None:
        """Take in a printed text."""
        self.memory.read(text)

    def next(self, admissible: Sequence[str]) -> str | None:
        """The next command; None when the task's sentence has an unknown form, or nothing is left to try.

        ``admissible``: the full commands that are possible now.
        """
        memory = self.memory
        goal = memory.goal
        if goal is None:
            return None
        self._admissible = frozenset(admissible)
        if memory.held is None:
            return self._fetch(goal)
        if type_of(memory.held) != goal.object_type:
            return self._put_down(memory.held)
        if goal.kind == "look":
            return self._light(goal)
        if not memory.ready(memory.held):
            appliances = memory.of_type(*(kind.lower() for kind in APPLIANCES[goal.kind][0]))
            if not appliances:
                return None
            place = self._nearest(appliances)
            return self._walk(place) or f"{goal.kind} {memory.held} with {place}"
        return self._deliver(memory.held, goal)

    # Parts of a plan

    def _fetch(self, goal: ReadGoal) -> str | None:
        """Take an object of the goal's type that was seen, or search for one."""
        memory = self.memory
        delivered = self._delivered(goal)
        seen = [(item, place) for item, place in memory.where(goal.object_type) if place != delivered]
        # Objects that are ready come first, then those at hand.
        seen.sort(key=lambda pair: (not memory.ready(pair[0]), self._walk(pair[1]) is not None))
        for item, place in seen:
            take = f"take {item} from {place}"
            if take in self._admissible:
                return take
            if command := self._walk(place) or self._look_inside(place):
                return command
        missing = [goal.object_type]
        if goal.kind == "look" and not memory.where(goal.target_type):
            missing.append(goal.target_type)
        return self._search(missing)

    def _light(self, goal: ReadGoal) -> str | None:
        lamps = self.memory.where(goal.target_type)
        lamps.sort(key=lambda pair: self._walk(pair[1]) is not None)
        for lamp, place in lamps:
            command = self._walk(place) or f"use {lamp}"
            if command in self._admissible:
                return command
        return self._search([goal.target_type])

    def _deliver(self, item: str, goal: ReadGoal) -> str | None:
        started = self._delivered(goal)
        targets = [started] if started else self.memory.of_type(goal.target_type)
        targets = [place for place in targets if (item, place) not in self._rejected]
        return self._put(item, self._nearest(targets)) if targets else None

    def _delivered(self, goal: ReadGoal) -> str | None:
        """Where the first of two objects is; None for other goals, and before it is delivered."""
        if goal.kind != "two":
            return None
        places = [p for _, p in self.memory.where(goal.object_type) if type_of(p) == goal.target_type]
        return max(places, key=places.count) if places else None

    def _put_down(self, item: str) -> str | None:
        """Get rid of an object that is not wanted: here where possible, else where it came from."""
        memory = self.memory
        for place in memory.places:
            if command := self._put_command(item, place):
                return command
        source = memory.came_from.get(item)
        order = [source] if source else []
        order += [place for place in memory.places if place != source]
        for place in order:
            if (item, place) not in self._rejected:
                command = self._put(item, place)
                if command is not None:
                    return command
        return None

    def _put(self, item: str, place: str) -> str | None:
        """The next command on the way to ``item`` in ``place``; None when it cannot be put there."""
        command = self._put_command(item, place) or self._walk(place) or self._look_inside(place)
        if command is None:
            self._rejected.add((item, place))
        return command

    def _put_command(self, item: str, place: str) -> str | None:
        forms = (f"move {item} to {place}", f"put {item} in/on {place}")
        return next((form for form in forms if form in self._admissible), None)

    # Places

    def _walk(self, place: str) -> str | None:
        """The command that goes to ``place``; None when the agent is there."""
        command = f"go to {place}"
        return command if command in self._admissible else None

    def _look_inside(self, place: str) -> str | None:
        """At ``place``: the command that shows its inside; None when it is open and was looked into."""
        if place in self.memory.closed:
            return f"open {place}"
        return None if place in self.memory.looked else f"examine {place}"

    def _nearest(self, places: Sequence[str]) -> str:
        """The place whose inside takes the fewest commands; of equal ones the first."""
        return min(places, key=self._commands_to)

    def _commands_to(self, place: str) -> int:
        """Commands until the inside of ``place`` is within reach: walking, opening, or looking into it."""
        memory = self.memory
        away = self._walk(place) is not None
        if place in memory.looked:
            return away + (place in memory.closed)
        return away + (place in memory.closed or type_of(place) in OPENABLE or not away)

    def _search(self, missing: Sequence[str]) -> str | None:
        """Look into the most plausible place that was not looked into; after all of them, again."""
        memory = self.memory
        places = memory.of_type(*dict.fromkeys(map(type_of, memory.places)))
        fresh = [place for place in places if place not in memory.looked]
        if fresh:
            place = max(fresh, key=lambda name: self._plausible(name, missing) / self._commands_to(name))
        elif places:
            place = min(places, key=lambda name: memory.looked[name])
        else:
            return None
        if command := self._walk(place):
            return command
        return f"open {place}" if place in memory.closed else f"examine {place}"

    def _plausible(self, place: str, missing: Sequence[str]) -> float:
        """Percent of such places that hold a missing object, times the factor that breaks ties."""
        kind = type_of(place)
        percent = max(_usual_places().get(item, {}).get(kind, RARE) for item in missing)
        draw = np.random.default_rng(name_key("explorer", self.seed, kind)).random()
        return percent * float(TIE ** (draw - 0.5))
