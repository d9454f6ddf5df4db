"""Rooms, furniture, objects and tasks of the generated households, from ``household_tables.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from repro_rl.files import TABLE, read_yaml

Span = tuple[int, int]  # least, most


@dataclass(slots=True, frozen=True)
class Furniture:
    """A receptacle type."""

    __pydantic_config__ = TABLE
    low: int  # lowest height above the floor in cm
    high: int  # highest
    openable: bool = False
    together: int = 0  # percent that share the location of the previous one of this type
    single: bool = False  # holds at most one object at the start


@dataclass(slots=True, frozen=True)
class Task:
    """An official task type; {o} and {r} stand for the goal's object type and receptacle type."""

    __pydantic_config__ = TABLE
    sentences: tuple[str, str]  # in lower case
    goal: str  # PDDL
    verb: str = ""  # how the object has to be changed: clean, heat or cool


@dataclass(slots=True, frozen=True)
class Room:
    """A kind of room, with counts of what is in it."""

    __pydantic_config__ = TABLE
    base: int  # room numbers are base + 1 .. base + 99
    furniture: dict[str, Span]
    objects: dict[str, Span]
    fixtures: dict[str, Span]  # cannot be taken and are in no receptacle


@dataclass(slots=True, frozen=True)
class HouseholdTables:
    """The whole file; each key is explained there."""

    __pydantic_config__ = TABLE
    tasks: dict[str, Task]
    furniture: dict[str, Furniture]
    basins: dict[str, str]  # basin -> the fixture that it is a part of
    rooms: dict[str, Room]
    start_receptacles: dict[str, tuple[str, ...]]  # object type -> receptacle types
    also_fits: dict[str, frozenset[str]]  # receptacle type -> object types
    fixed: frozenset[str]  # object types in a receptacle that cannot be taken
    lamp: str
    properties: dict[str, frozenset[str]]  # predicate -> object types
    never_goals: frozenset[str]  # object types
    otypes: frozenset[str]
    rtypes: frozenset[str]
    type_facts: tuple[str, ...]


@cache
def tables() -> HouseholdTables:
    """Read once. Raises DataError naming file and key."""
    return read_yaml(Path(__file__).with_suffix(".yaml"), HouseholdTables)
