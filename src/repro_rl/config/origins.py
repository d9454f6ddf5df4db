"""Where settings are set, for messages: in which file, or by which override as it was typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro_rl.config.problems import SECRET, Problem
from repro_rl.config.recipe_files import is_yaml_file

Keys = tuple[str, ...]  # parts of a setting's name
NAME = re.compile(r"[a-z_]+(?:\.[a-z_0-9]+)+|seed|plugins")  # of a setting in a sentence
IN, BY = "Set in ", "Set by "  # beginnings of the sentences
MANY = 3  # keys of one place that a message names


@dataclass(slots=True, frozen=True)
class Place:
    """A file, or one override."""

    said: str  # how a message calls it
    settings: Mapping[str, Any]  # nested
    key: Keys = ()  # of an override; () of a file

    def has(self, keys: Keys) -> bool:
        """Whether the setting or section of this name is set here, or something below it."""
        target: Any = self.settings
        for part in keys:
            if not isinstance(target, Mapping) or part not in target:
                return False
            target = target[part]
        return True

    def hides(self, keys: Keys) -> bool:
        """Whether what others set for this name does not count: a whole section replaces it."""
        return bool(self.key) and len(self.key) < len(keys) and keys[: len(self.key)] == self.key


def of_file(name: str, settings: Mapping[str, Any]) -> Place:
    """A settings file, or a recipe of the package."""
    return Place(name if is_yaml_file(name) else f"the recipe {name}", settings)


def of_override(key: str, value: Any, typed: str | None) -> Place:
    """An override of the setting ``key``; ``typed``: the text, None where it was none."""
    keys = tuple(key.split("."))
    nested: Any = value
    for part in reversed(keys):
        nested = {part: nested}
    secret = any(f"{name}.".startswith(f"{key}.") for name in SECRET)
    if typed is None:
        said = f"the value given for {key}" if secret or isinstance(value, dict) else f"{key}={value}"
    else:
        said = f"the override {f'{key}=...' if secret else typed!r}"
    return Place(said, nested, keys)


def sentences(problems: Iterable[Problem], places: Sequence[Place]) -> list[str]:
    """Sentences that say where the settings in ``problems`` are set; ``places``: those that win last.

    A setting that nothing sets has its default, or the method's own, and is not named.
    """
    found: dict[str, dict[str, None]] = {}
    for problem in problems:
        for keys in _asked(problem):
            at, found_in = _set_at(keys, places, whole=problem.rule and keys == problem.path)
            for place in found_in:
                found.setdefault(place.said, {})[".".join(at)] = None
    lines = []
    for place in places:
        keys_there = [] if place.key else list(found.get(place.said, ()))
        if keys_there:
            more = f" and {len(keys_there) - MANY} more" if len(keys_there) > MANY else ""
            lines.append(f"{IN}{place.said}: {', '.join(keys_there[:MANY])}{more}.")
        elif place.said in found:
            lines.append(f"{BY}{place.said}.")
    return list(dict.fromkeys(lines))


def without_places(message: str) -> str:
    """The text of an error of settings without where they are set, for settings that no person gave."""
    return "\n".join(line for line in message.splitlines() if not line.startswith((IN, BY)))


def _asked(problem: Problem) -> list[Keys]:
    """The settings that a problem is about: those that a rule names, else the one where it was found."""
    named = [tuple(name.split(".")) for name in NAME.findall(problem.text)] if problem.rule else []
    return list(dict.fromkeys(named)) or [problem.path]


def _set_at(keys: Keys, places: Sequence[Place], *, whole: bool) -> tuple[Keys, list[Place]]:
    """The place that wins for a setting, and its name; of one that nothing sets, those of its section.

    ``whole``: it is a section, all of whose places count.
    """
    for length in range(len(keys), min(len(keys), 2) - 1, -1):
        part = keys[:length]
        found: list[Place] = []
        for place in reversed(places):
            if place.has(part):
                found.append(place)
                if not whole:
                    break
            if place.hides(part):
                break
        if found:
            return part, found
    return keys, []
