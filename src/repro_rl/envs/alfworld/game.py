"""Reading official ALFWorld game files (``game.tw-pddl``).

A file is JSON. It holds a PDDL domain and a grammar (the same in every game), and a PDDL problem with the
initial facts and the goal. Facts that no rule uses are ignored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError
from repro_rl.files import parse_json, read_bytes
from repro_rl.files.limits import MAX_DEPTH

_TOKEN = re.compile(r"[()]|[^\s()]+")
_COMMENT = re.compile(r";[^\n]*")
_TASK = re.compile(r'"(Your task is to: [^"]*)"')
MANGLED = (("_minus_", "-"), ("_bar_", "|"), ("_plus_", "+"), ("_dot_", "."))
MADE_BY = "repro-rl households 1"  # value of "made_by" in generated files
_PROPERTIES = {"isClean": "clean", "isHot": "heat", "isCool": "cool"}
_FLAGS = (  # predicates of one object
    *("pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable", "isReceptacleObject"),
    *("isClean", "isHot", "isCool", "isSliced", "isToggled"),
)
_RELATIONS = (
    *("receptacleType", "objectType", "receptacleAtLocation", "objectAtLocation", "inReceptacle"),
    *("inReceptacleObject", "canContain", "atLocation"),
)
# Number of arguments per predicate. Facts of other predicates are ignored.
_FACTS = dict.fromkeys(_RELATIONS, 2) | dict.fromkeys(("openable", "opened", *_FLAGS), 1)

Expression = str | list["Expression"]


@dataclass(slots=True, frozen=True)
class Goal:
    """The condition that ends the game."""

    kind: str  # place, two, clean, heat, cool or look
    object_type: str  # such as "Apple"
    receptacle_type: str  # such as "Fridge"; the lamp's type when kind is "look"


@dataclass(slots=True, frozen=True)
class Game:
    """One game. Receptacles and objects are numbered 0.. in the order of their raw ids."""

    name: str  # file or task id, for messages
    task: str  # "Your task is to: ..."
    goal: Goal  # the condition that ends the game
    start: int  # the agent's location at the start
    receptacles: tuple[str, ...]  # names as printed, such as "cabinet 3"
    receptacle_types: tuple[str, ...]  # type of each receptacle, such as "Cabinet"
    receptacle_locations: tuple[int, ...]  # location of each receptacle
    location_names: tuple[str, ...]  # name of each location, such as "loc 12"; printed by version 0.3
    openable: frozenset[int]  # receptacles that can be opened and closed
    opened: frozenset[int]  # receptacles that are open at the start
    objects: tuple[str, ...]  # names as printed, such as "apple 1"
    object_types: tuple[str, ...]  # type of each object, such as "Apple"
    object_locations: tuple[frozenset[int], ...]  # locations of each object
    inside: tuple[frozenset[int], ...]  # receptacles that hold each object; there may be two
    contents: tuple[tuple[int, ...], ...]  # objects inside each object that is a receptacle itself
    flags: dict[str, frozenset[int]]  # predicate -> objects for which it is true
    fits: frozenset[tuple[str, str]]  # (receptacle type, object type)
    # state -> (commands still needed, next command); a cache that AlfworldEnv fills
    plans: dict[str, tuple[int | None, str | None]] = field(default_factory=dict, compare=False, repr=False)
    # (version 0.3, location) -> commands that are possible there in every state; a cache that Play fills
    approaches: dict[tuple[bool, int], dict[str, tuple[str, int, int]]] = field(
        default_factory=dict, compare=False, repr=False
    )


def demangle(raw: str) -> str:
    """The original id of a mangled PDDL name."""
    for mangled, symbol in MANGLED:
        raw = raw.replace(mangled, symbol)
    return raw


def read_game(path: Path) -> Game:
    """The game in a ``game.tw-pddl`` file. Raises DataError naming the file and what is wrong in it."""
    return game_from(read_data(path), str(path))


def read_data(path: Path) -> Any:
    """The JSON value of a game file. Raises DataError naming the file."""
    return parse_json(read_bytes(path), file=path)


def task_sentence(grammar: str) -> str | None:
    """The sentence "Your task is to: ..." in a grammar; None when it has none."""
    match = _TASK.search(grammar)
    return None if match is None else match[1]


def content_key(data: dict[str, Any]) -> str:
    """sha256 of a game's problem and grammar, white space normalized.

    Of a generated game's grammar only the task sentence counts: changes of its other texts keep the digests
    of the panels.
    """
    grammar = str(data.get("grammar", ""))
    if data.get("made_by") == MADE_BY:
        grammar = json.dumps({"task": [{"rhs": task_sentence(grammar)}]}, indent=2)
    text = "\n".join(" ".join(part.split()) for part in (str(data.get("pddl_problem", "")), grammar))
    return hashlib.sha256(text.encode()).hexdigest()


def game_from(data: Any, name: str) -> Game:
    """The game in the JSON value of a game file. Raises DataError naming ``name`` and the field."""
    for key in ("pddl_problem", "grammar"):
        if not isinstance(data, dict) or not isinstance(data.get(key), str):
            raise DataError("is missing or no text", file=name, field=key)
    task = task_sentence(data["grammar"])
    if task is None:
        raise DataError("has no sentence 'Your task is to: ...'", file=name, field="grammar")
    problem = _parse(data["pddl_problem"], name)
    parts = [part for part in problem[1:] if isinstance(part, list) and part]
    sections = {part[0]: part[1:] for part in parts if isinstance(part[0], str)}
    for key in (":init", ":goal"):
        if key not in sections:
            raise DataError(f"has no {key} section", file=name, field="pddl_problem")
    facts = _facts(sections[":init"], name)
    return _Builder(name, facts).game(task, sections[":goal"])


def _parse(text: str, name: str) -> list[Expression]:
    """The one expression in a PDDL text."""
    stack: list[list[Expression]] = [[]]
    for token in _TOKEN.findall(_COMMENT.sub("", text)):
        if token == "(":
            stack.append([])
            if len(stack) > MAX_DEPTH:
                raise DataError(
                    f"is nested deeper than the limit of {MAX_DEPTH} brackets",
                    file=name,
                    field="pddl_problem",
                )
        elif token == ")":
            if len(stack) < 2:
                raise DataError("closes a bracket that was never opened", file=name, field="pddl_problem")
            closed = stack.pop()
            stack[-1].append(closed)
        else:
            stack[-1].append(token)
    if len(stack) != 1 or len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise DataError("ends before its brackets close", file=name, field="pddl_problem")
    return stack[0][0]


def _facts(items: Sequence[Expression], name: str) -> dict[str, list[tuple[str, ...]]]:
    facts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for item in items:
        if not isinstance(item, list) or not item or not isinstance(item[0], str):
            raise DataError(f"holds {str(item)[:60]!r}, which is no fact", file=name, field=":init")
        count = _FACTS.get(item[0])
        if count is None:
            continue
        arguments = tuple(word for word in item[1:] if isinstance(word, str))
        if len(arguments) != count:
            raise DataError(
                f"{item[0]} has {len(arguments)} arguments, not {count}", file=name, field=":init"
            )
        facts[item[0]].append(arguments)
    return facts


def _names(types: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Mangled ids in order, and printed names: within a type the first id has the highest number."""
    order = sorted(types, key=str.lower)
    groups: dict[str, list[str]] = defaultdict(list)
    for raw in order:
        basin = "basin" if "basin" in raw.lower() else ""  # Sink|..|SinkBasin is a sinkbasin
        groups[raw.split("_bar_", 1)[0].lower() + basin].append(raw)
    names = {}
    for kind, members in groups.items():
        for number, raw in enumerate(reversed(members), start=1):
            names[raw] = f"{kind} {number}"
    return order, names


class _Builder:
    """Turns the facts of one problem into a Game: mangled ids become numbers."""

    def __init__(self, name: str, facts: dict[str, list[tuple[str, ...]]]):
        self._name, self._facts = name, facts
        self._receptacle_types = self._types("receptacleType")  # mangled id -> type
        self._object_types = self._types("objectType")
        receptacles, self._receptacle_names = _names(self._receptacle_types)
        objects, self._object_names = _names(self._object_types)
        self._receptacles = {raw: i for i, raw in enumerate(receptacles)}  # mangled id -> number, in order
        self._objects = {raw: i for i, raw in enumerate(objects)}
        self._locations: dict[str, int] = {}  # mangled id -> number, in order of first mention

    def game(self, task: str, goal: Sequence[Expression]) -> Game:
        # The order matters: locations are numbered in the order in which facts mention them.
        receptacle_locations = self._receptacle_locations()
        inside = self._inside()
        object_locations = self._object_locations()
        contents = self._contents()
        start = self._location(self._facts["atLocation"][0][1])
        _, location_names = _names(self._locations)
        return Game(
            name=self._name,
            task=task,
            goal=_goal(goal, self._name),
            start=start,
            receptacles=tuple(self._receptacle_names[raw] for raw in self._receptacles),
            receptacle_types=tuple(self._receptacle_types[raw] for raw in self._receptacles),
            receptacle_locations=tuple(receptacle_locations),
            location_names=tuple(location_names[raw] for raw in self._locations),
            openable=self._having("openable", self._receptacles),
            opened=self._having("opened", self._receptacles),
            objects=tuple(self._object_names[raw] for raw in self._objects),
            object_types=tuple(self._object_types[raw] for raw in self._objects),
            object_locations=tuple(map(frozenset, object_locations)),
            inside=tuple(map(frozenset, inside)),
            contents=tuple(tuple(sorted(inner)) for inner in contents),
            flags={predicate: self._having(predicate, self._objects) for predicate in _FLAGS},
            fits=frozenset(
                (r.removesuffix("Type"), o.removesuffix("Type")) for r, o in self._facts["canContain"]
            ),
        )

    def _error(self, message: str) -> DataError:
        return DataError(message, file=self._name, field=":init")

    def _types(self, predicate: str) -> dict[str, str]:
        return {raw: kind.removesuffix("Type") for raw, kind in self._facts[predicate]}

    def _number(self, numbers: dict[str, int], raw: str, predicate: str) -> int:
        number = numbers.get(raw)
        if number is None:
            raise self._error(f"{predicate} names {demangle(raw)!r}, which has no type")
        return number

    def _location(self, raw: str) -> int:
        return self._locations.setdefault(raw, len(self._locations))

    def _having(self, predicate: str, numbers: dict[str, int]) -> frozenset[int]:
        return frozenset(self._number(numbers, raw, predicate) for (raw,) in self._facts[predicate])

    def _receptacle_locations(self) -> list[int]:
        """The location of each receptacle; checks that the agent has one, too."""
        locations = [-1] * len(self._receptacles)
        for raw, location in self._facts["receptacleAtLocation"]:
            number = self._number(self._receptacles, raw, "receptacleAtLocation")
            locations[number] = self._location(location)
        for raw, number in zip(self._receptacles, locations, strict=True):
            if number < 0:
                raise self._error(f"the receptacle {raw!r} has no location")
        agents = len(self._facts["atLocation"])
        if agents != 1:
            raise self._error(f"the agent is at {agents} locations, not at one")
        return locations

    def _inside(self) -> list[set[int]]:
        inside: list[set[int]] = [set() for _ in self._objects]
        for raw, receptacle in self._facts["inReceptacle"]:
            number = self._number(self._objects, raw, "inReceptacle")
            inside[number].add(self._number(self._receptacles, receptacle, "inReceptacle"))
        return inside

    def _object_locations(self) -> list[set[int]]:
        locations: list[set[int]] = [set() for _ in self._objects]
        for raw, location in self._facts["objectAtLocation"]:
            locations[self._number(self._objects, raw, "objectAtLocation")].add(self._location(location))
        return locations

    def _contents(self) -> list[list[int]]:
        contents: list[list[int]] = [[] for _ in self._objects]
        for inner, outer in self._facts["inReceptacleObject"]:
            number = self._number(self._objects, outer, "inReceptacleObject")
            contents[number].append(self._number(self._objects, inner, "inReceptacleObject"))
        return contents


def _goal(expression: Sequence[Expression], name: str) -> Goal:
    """The goal, from one of the six forms that the official games have."""
    atoms = [atom for atom in _atoms(list(expression)) if atom[0] != "="]
    predicates = {atom[0] for atom in atoms}
    objects = [atom[2].removesuffix("Type") for atom in atoms if atom[0] == "objectType"]
    receptacles = [atom[2].removesuffix("Type") for atom in atoms if atom[0] == "receptacleType"]
    if "isToggled" in predicates and "holds" in predicates and len(objects) == 2:
        lamp = next(atom[1] for atom in atoms if atom[0] == "isToggled")
        first = next(atom for atom in atoms if atom[0] == "objectType")
        if first[1] == lamp:
            return Goal("look", objects[1], objects[0])
    one_type_each = len({*objects}) == len({*receptacles}) == 1
    if "inReceptacle" in predicates and one_type_each:
        kinds = [kind for predicate, kind in _PROPERTIES.items() if predicate in predicates]
        if not kinds and len(objects) in (1, 2):
            return Goal("place" if len(objects) == 1 else "two", objects[0], receptacles[0])
        if len(kinds) == 1 and len(objects) == 1:
            return Goal(kinds[0], objects[0], receptacles[0])
    raise DataError("is none of the six official forms", file=name, field=":goal")


def _atoms(expression: Expression) -> Iterator[list[str]]:
    if isinstance(expression, list):
        words = [word for word in expression if isinstance(word, str)]
        if len(words) == len(expression) and len(words) > 1 and not words[0].startswith("?"):
            yield words
        for part in expression:
            yield from _atoms(part)
