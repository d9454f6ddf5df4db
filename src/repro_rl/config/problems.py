"""What is wrong with nested settings, a sentence a problem, and which setting each one is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, ValidationError

from repro_rl.config.recipe_files import BASE_KEY
from repro_rl.config.values import section_of
from repro_rl.errors import clause, did_you_mean
from repro_rl.registry import other_kinds
from repro_rl.settings import problems_in

# Settings whose wrong value may be an API key: messages leave it out.
SECRET = ("api.key_env", "api.base_url", "api", "policy.vllm.server.key_env", "policy.vllm.server.url")


@dataclass(slots=True, frozen=True)
class Problem:
    """Why settings are refused."""

    text: str  # names the setting and says what is wrong
    path: tuple[str, ...]  # parts of the name of the setting, or of the section that a rule is about
    rule: bool = False  # it joins several settings and names them itself


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """The problems with the settings ``root``, each with the setting's full name."""
    found = []
    for problem in problems_in(error):
        section, path = _locate(problem["loc"], root)
        where = ".".join(path)
        message = problem["msg"].removeprefix("Value error, ")
        rule = problem["type"] == "value_error" and isinstance(problem["input"], dict)
        if problem["type"] == "extra_forbidden":
            text = f"Unknown setting {where!r}{_hint(path[-1], section, root)}"
        elif rule:
            text = message
        elif where in SECRET or problem["type"] == "missing":
            text = f"{where}: {message}"
        else:
            value = problem["input"]
            if problem["type"] == "literal_error" and isinstance(value, str):
                elsewhere = other_kinds(value, "value of this setting")
                message += f". {elsewhere}" if elsewhere else ""
            text = f"{where}: {clause(message)} (got {value!r})"
        found.append(Problem(text, tuple(path), rule))
    return found


def readable(error: ValidationError, root: type[BaseModel]) -> str:
    """``problems_of``, one line a problem."""
    return "\n".join(problem.text for problem in problems_of(error, root))


def _hint(name: str, section: type[BaseModel], root: type[BaseModel]) -> str:
    """What may have been meant by an unknown ``name`` in ``section``: what is called so elsewhere, if any."""
    elsewhere = sorted(f"{prefix}{name}" for prefix, other in _sections(root) if name in other.model_fields)
    known = [*section.model_fields, *([BASE_KEY] if section is root and name != BASE_KEY else [])]
    return did_you_mean(name, known, elsewhere)


def _sections(root: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """``root`` and every section below it, each with what stands before the names of its settings."""
    yield prefix, root
    for name, field in root.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield from _sections(section, f"{prefix}{name}.")


def _locate(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[type[BaseModel], list[str]]:
    """The section that a problem is in, and the parts of the setting's name.

    Pydantic also puts the members of a union into the location; these are left out.
    """
    section = root
    path: list[str] = []
    inside = True  # every part so far named a section
    for part in location:
        if isinstance(part, int):
            path.append(str(part))
        elif inside:
            path.append(part)
            annotation = section.model_fields[part].annotation if part in section.model_fields else None
            types = (annotation, *get_args(annotation))  # the section itself, or those of a list
            below = next(filter(None, map(section_of, types)), None)
            section, inside = below or section, below is not None
    return section, path
