"""Reading official ALFWorld game files (``game.tw-pddl``).

A file is JSON: a PDDL domain and a grammar (the same in every game), and a PDDL problem that says what there
is and what is wanted. Only the facts that the rules use are kept.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError

_TOKEN = re.compile(r"[()]|[^\s()]+")
_COMMENT = re.compile(r";[^\n]*")
_TASK = re.compile(r'"(Your task is to: [^"]*)"')
MANGLED = (("_minus_", "-"), ("_bar_", "|"), ("_plus_", "+"), ("_dot_", "."))
MADE_BY = "repro-rl households 1"  # stands in generated files under "made_by"
_PROPERTIES = {"isClean": "clean", "isHot": "heat", "isCool": "cool"}
# Facts by predicate: how many arguments they have. What is not listed changes nothing and is passed over.
_FACTS = {
    "receptacleType": 2,
    "objectType": 2,
    "receptacleAtLocation": 2,
    "objectAtLocation": 2,
    "inReceptacle": 2,
    "inReceptacleObject": 2,
    "canContain": 2,
    "atLocation": 2,
    "openable": 1,
    "opened": 1,
    "pickupable": 1,
    "cleanable": 1,
    "heatable": 1,
    "coolable": 1,
    "toggleable": 1,
    "sliceable": 1,
    "isReceptacleObject": 1,
    "isClean": 1,
    "isHot": 1,
    "isCool": 1,
    "isSliced": 1,
    "isToggled": 1,
}

Expression = str | list["Expression"]


@dataclass(slots=True, frozen=True)
class Goal:
    """What has to be true at the end."""

    kind: str  # place, two, clean, heat, cool or look
    object_type: str  # such as "Apple"
    receptacle_type: str  # such as "Fridge"; the lamp's type when kind is "look"


@dataclass(slots=True, frozen=True)
class Game:
    """One game. Receptacles and objects are numbered 0.. in the order of their raw ids."""

    name: str  # where it comes from, for messages
    task: str  # "Your task is to: ..."
    goal: Goal
    start: int  # location the agent stands at
    receptacles: tuple[str, ...]  # names as printed, such as "cabinet 3"
    receptacle_types: tuple[str, ...]
    places: tuple[int, ...]  # location of each receptacle
    place_names: tuple[str, ...]  # of each location, such as "loc 12"; printed by the older version
    openable: frozenset[int]
    opened: frozenset[int]
    objects: tuple[str, ...]  # names as printed, such as "apple 1"
    object_types: tuple[str, ...]
    object_places: tuple[frozenset[int], ...]  # locations each object is recorded at
    inside: tuple[frozenset[int], ...]  # receptacles each object is in; there may be two
    contents: tuple[tuple[int, ...], ...]  # objects inside an object that is a receptacle itself
    flags: dict[str, frozenset[int]]  # predicate -> objects it holds of
    fits: frozenset[tuple[str, str]]  # (receptacle type, object type)
    plans: dict[str, tuple[int | None, str | None]] = field(default_factory=dict, compare=False, repr=False)


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
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as JSON ({error})", file=path) from error


def task_sentence(grammar: str) -> str | None:
    """The sentence "Your task is to: ..." in a grammar; None when it has none."""
    found = _TASK.search(grammar)
    return None if found is None else found[1]


def game_from(data: Any, name: str) -> Game:
    """The game in the JSON value of a game file."""
    for key in ("pddl_problem", "grammar"):
        if not isinstance(data, dict) or not isinstance(data.get(key), str):
            raise DataError("is missing or no text", file=name, field=key)
    task = task_sentence(data["grammar"])
    if task is None:
        raise DataError("has no sentence 'Your task is to: ...'", file=name, field="grammar")
    problem = _parse(data["pddl_problem"], name)
    sections = {part[0]: part[1:] for part in problem[1:] if isinstance(part, list) and part}
    for key in (":init", ":goal"):
        if key not in sections:
            raise DataError(f"has no {key} section", file=name, field="pddl_problem")
    return _build(name, task, _facts(sections[":init"], name), sections[":goal"])


def _parse(text: str, name: str) -> list[Expression]:
    """The one expression in a PDDL text."""
    stack: list[list[Expression]] = [[]]
    for token in _TOKEN.findall(_COMMENT.sub("", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) < 2:
                raise DataError("closes a bracket that was never opened", file=name, field="pddl_problem")
            done = stack.pop()
            stack[-1].append(done)
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


def _build(
    name: str,
    task: str,
    facts: dict[str, list[tuple[str, ...]]],
    goal: Sequence[Expression],
) -> Game:
    def kinds(predicate: str) -> dict[str, str]:
        return {raw: kind.removesuffix("Type") for raw, kind in facts[predicate]}

    def number(table: dict[str, int], raw: str, predicate: str) -> int:
        found = table.get(raw)
        if found is None:
            raise DataError(
                f"{predicate} names {demangle(raw)!r}, which has no type", file=name, field=":init"
            )
        return found

    receptacle_types, object_types = kinds("receptacleType"), kinds("objectType")
    receptacle_order, receptacle_names = _names(receptacle_types)
    object_order, object_names = _names(object_types)
    receptacles = {raw: i for i, raw in enumerate(receptacle_order)}
    objects = {raw: i for i, raw in enumerate(object_order)}
    locations: dict[str, int] = {}
    places = [-1] * len(receptacles)
    for raw, place in facts["receptacleAtLocation"]:
        places[number(receptacles, raw, "receptacleAtLocation")] = locations.setdefault(place, len(locations))
    for raw, found in zip(receptacle_order, places, strict=True):
        if found < 0:
            raise DataError(f"the receptacle {raw!r} has no location", file=name, field=":init")
    if len(facts["atLocation"]) != 1:
        raise DataError(
            f"the agent is at {len(facts['atLocation'])} locations, not at one", file=name, field=":init"
        )
    inside: list[set[int]] = [set() for _ in objects]
    for raw, receptacle in facts["inReceptacle"]:
        inside[number(objects, raw, "inReceptacle")].add(number(receptacles, receptacle, "inReceptacle"))
    at: list[set[int]] = [set() for _ in objects]
    for raw, place in facts["objectAtLocation"]:
        at[number(objects, raw, "objectAtLocation")].add(locations.setdefault(place, len(locations)))
    contents: list[list[int]] = [[] for _ in objects]
    for inner, outer in facts["inReceptacleObject"]:
        contents[number(objects, outer, "inReceptacleObject")].append(
            number(objects, inner, "inReceptacleObject")
        )

    def holding(predicate: str, table: dict[str, int]) -> frozenset[int]:
        return frozenset(number(table, raw, predicate) for (raw,) in facts[predicate])

    flags = {
        predicate: holding(predicate, objects)
        for predicate, count in _FACTS.items()
        if count == 1 and predicate not in ("openable", "opened")
    }
    start = locations.setdefault(facts["atLocation"][0][1], len(locations))
    _, place_names = _names(locations)
    return Game(
        name=name,
        task=task,
        goal=_goal(goal, name),
        start=start,
        receptacles=tuple(receptacle_names[raw] for raw in receptacle_order),
        receptacle_types=tuple(receptacle_types[raw] for raw in receptacle_order),
        places=tuple(places),
        place_names=tuple(place_names[raw] for raw in locations),
        openable=holding("openable", receptacles),
        opened=holding("opened", receptacles),
        objects=tuple(object_names[raw] for raw in object_order),
        object_types=tuple(object_types[raw] for raw in object_order),
        object_places=tuple(map(frozenset, at)),
        inside=tuple(map(frozenset, inside)),
        contents=tuple(tuple(sorted(inner)) for inner in contents),
        flags=flags,
        fits=frozenset((r.removesuffix("Type"), o.removesuffix("Type")) for r, o in facts["canContain"]),
    )


def _goal(expression: Sequence[Expression], name: str) -> Goal:
    """The goal behind the six forms that the official games have."""
    atoms = [atom for atom in _atoms(list(expression)) if atom[0] != "="]
    found = {atom[0] for atom in atoms}
    objects = [atom[2].removesuffix("Type") for atom in atoms if atom[0] == "objectType"]
    receptacles = [atom[2].removesuffix("Type") for atom in atoms if atom[0] == "receptacleType"]
    if "isToggled" in found and "holds" in found and len(objects) == 2:
        lamp = next(atom[1] for atom in atoms if atom[0] == "isToggled")
        first = next(atom for atom in atoms if atom[0] == "objectType")
        if first[1] == lamp:
            return Goal("look", objects[1], objects[0])
    if "inReceptacle" in found and objects and receptacles and len({*objects}) == len({*receptacles}) == 1:
        kinds = [kind for predicate, kind in _PROPERTIES.items() if predicate in found]
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
