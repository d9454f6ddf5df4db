"""What an agent has seen in one episode: a memory that reads the printed texts and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from repro_rl.envs.alfworld.engine import APPLIANCES
from repro_rl.envs.alfworld.household_tables import tables

_NAME = r"([a-z]+ \d+)"
_NAMES = re.compile(rf"\ba {_NAME}")
_CONTENTS = re.compile(rf"(?:On the {_NAME}, you see|The {_NAME} is open\. In it, you see) ([^.]*)\.")
_CLOSED = re.compile(rf"The {_NAME} is closed\.|You close the {_NAME}\.")
_TAKEN = re.compile(rf"You pick up the {_NAME} from the {_NAME}\.")
_PUT = re.compile(rf"You (?:move|put) the {_NAME} (?:to|in/on) the {_NAME}\.")
_CHANGED = re.compile(rf"You (heat|clean|cool) the {_NAME} using the {_NAME}\.")
_ROOM = re.compile(r"Looking quickly around you, you see ([^.]*)\.")
_TASK = re.compile(r"Your task is to: ([^\n]*)")
_UNDOES = {"heat": "cool", "cool": "heat"}


class ReadGoal(NamedTuple):
    """A task, as its sentence tells it."""

    kind: str  # place, two, clean, heat, cool or look
    object_type: str  # in lower case, such as "apple"
    target_type: str  # receptacle type, or the lamp's type when kind is "look"


def type_of(name: str) -> str:
    """``apple`` of ``apple 1``."""
    return name.split(" ", 1)[0]


def read_goal(sentence: str) -> ReadGoal | None:
    """The goal in a sentence such as "put a cool tomato in microwave."; None when it has another form."""
    for task_type, task in tables().tasks.items():
        kind = task.verb or {"pick_two_obj_and_place": "two", "look_at_obj_in_light": "look"}.get(
            task_type, "place"
        )
        for form in task.sentences:
            pattern = re.escape(form).replace(r"\{o\}", r"(?P<o>[a-z]+)").replace(r"\{r\}", r"(?P<r>[a-z]+)")
            match = re.fullmatch(pattern, sentence.strip().lower())
            if match is not None:
                return ReadGoal(kind, match["o"], match["r"])
    return None


@dataclass(slots=True)
class Memory:
    """Places, contents and the held object, as far as texts have told them. Names as printed."""

    places: list[str] = field(default_factory=list)  # in printed order
    goal: ReadGoal | None = None  # None: the sentence was not understood
    at: str | None = None  # the place that was looked at last
    held: str | None = None  # object
    contents: dict[str, list[str]] = field(default_factory=dict)  # place -> objects last seen there
    closed: set[str] = field(default_factory=set)  # places that are closed
    came_from: dict[str, str] = field(default_factory=dict)  # object -> place it was taken from
    changed: dict[str, set[str]] = field(default_factory=dict)  # object -> heat, clean, cool
    looked: dict[str, int] = field(default_factory=dict)  # place -> number of the text that showed its inside
    texts: int = 0  # read so far

    def read(self, text: str) -> None:
        """Take in what was printed: the first text, or the answer to a command."""
        self.texts += 1
        if room := _ROOM.search(text):
            self.places = self.places or _NAMES.findall(room[1])
        if task := _TASK.search(text):
            self.goal = read_goal(task[1])
        if match := _CLOSED.search(text):
            self.at = match[1] or match[2]
            self.closed.add(self.at)
            if match[1] is None:  # closed by the agent: its contents are still known
                return
        if match := _CONTENTS.search(text):
            self.at = match[1] or match[2]
            self.closed.discard(self.at)
            self.contents[self.at] = _NAMES.findall(match[3])
            self.looked[self.at] = self.texts
        self._read_handling(text)

    def _read_handling(self, text: str) -> None:
        if match := _TAKEN.search(text):
            item, place = match.groups()
            self.held, self.came_from[item] = item, place
            self.contents[place] = [name for name in self.contents.get(place, []) if name != item]
        elif match := _PUT.search(text):
            item, place = match.groups()
            self.held = None
            self.contents.setdefault(place, []).append(item)
        elif match := _CHANGED.search(text):
            verb, item, _ = match.groups()
            now = self.changed.setdefault(item, set())
            now.discard(_UNDOES.get(verb, ""))
            now.add(verb)

    def where(self, kind: str) -> list[tuple[str, str]]:
        """(object, place) of every object of a type that was seen, but for the held one."""
        return [
            (name, place)
            for place, names in self.contents.items()
            for name in names
            if type_of(name) == kind and name != self.held
        ]

    def of_type(self, *kinds: str) -> list[str]:
        """The places of these types, by number."""
        names = [place for place in self.places if type_of(place) in kinds]
        return sorted(names, key=lambda name: (kinds.index(type_of(name)), int(name.split(" ")[1])))

    def ready(self, item: str) -> bool:
        """Whether an object of the goal's type has been changed as the goal demands."""
        assert self.goal is not None
        return self.goal.kind not in APPLIANCES or self.goal.kind in self.changed.get(item, ())
