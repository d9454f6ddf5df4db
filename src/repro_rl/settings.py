"""The base class of every section of the settings, and the value types that sections share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from repro_rl.errors import ConfigError, counted


class Section(BaseModel):
    """A group of settings, also checked on assignment.

    Raises pydantic's ValidationError for an unknown field or a wrong value.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)
REFUSED = "refused"  # in the context of a validation: a list, for what a training would be refused for


def forbid_training(info: ValidationInfo, problems: Iterable[str]) -> None:
    """Raises ValueError with the first of ``problems``: sentences on what a training must not be set to.

    Where the settings of a finished run are only read, all of them are written down instead. What they are
    about does not matter for playing with its model.
    """
    noted = (info.context or {}).get(REFUSED)
    for problem in problems:
        if noted is None:
            raise ValueError(problem)
        noted.append(problem)


@contextmanager
def forbidding_training(info: ValidationInfo) -> Iterator[None]:
    """``forbid_training`` of the ValueError that ends the block, if one does."""
    try:
        yield
    except ValueError as error:
        forbid_training(info, [str(error)])


# What pydantic says in Python's words, in those of settings.
PLAIN = {
    "tuple_type": "Input should be a list, such as [A, B]",
    "list_type": "Input should be a list, such as [A, B]",
    "model_type": "Input should be a section, such as {KEY: VALUE}",
}


def problems_in(error: ValidationError) -> list[ErrorDetails]:
    """What pydantic found, its messages in the words of settings.

    A list of a wrong length is one problem of the list. Pydantic names each value that is missing, and calls
    a list too short whose values it has refused.
    """
    found: list[ErrorDetails] = []
    lists: set[tuple[int | str, ...]] = set()  # those of which a problem is told
    last_missing = {p["loc"][:-1]: p["loc"][-1] for p in error.errors() if _misses_value(p)}
    for problem in error.errors():
        if (message := _of_length(problem, last_missing)) is not None:
            at = problem["loc"][:-1] if problem["type"] == "missing" else problem["loc"]
            if at in lists:
                continue
            lists.add(at)
            problem = {**problem, "type": "list_length", "loc": at, "msg": message}
        elif problem["loc"] and isinstance(problem["loc"][-1], int):
            lists.add(problem["loc"][:-1])
        found.append({**problem, "msg": PLAIN.get(problem["type"], problem["msg"])})
    return found


def _misses_value(problem: ErrorDetails) -> bool:
    """Whether a list lacks a value."""
    return problem["type"] == "missing" and bool(problem["loc"]) and isinstance(problem["loc"][-1], int)


def _of_length(problem: ErrorDetails, last_missing: Mapping[tuple[int | str, ...], int | str]) -> str | None:
    """What to give instead of a list or mapping of a wrong length; None for any other problem."""
    context = problem.get("ctx", {})
    if _misses_value(problem):
        return _list_of("", int(last_missing[problem["loc"][:-1]]) + 1)
    if problem["type"] == "too_long":  # of values that are one each, such as [A, B]
        return _list_of("" if context["field_type"] == "Tuple" else "at most ", context["max_length"])
    if problem["type"] == "too_short":
        least = context["min_length"]
        if context["field_type"] == "Dictionary":
            return f"Give at least {counted(least, 'entry', 'entries')}, such as {{KEY: VALUE}}"
        return _list_of("at least ", least)
    return None


def _list_of(bound: str, count: int) -> str:
    letters = ", ".join("ABCDEFGH"[:count])
    return f"Give a list of {bound}{counted(count, 'value')}, such as [{letters}]"


def checked(kind: type[S], name: str, values: Mapping[str, Any]) -> S:
    """``kind`` with ``values``. Raises ConfigError with the first problem, after ``name``."""
    try:
        return kind(**values)
    except ValidationError as error:
        problem = problems_in(error)[0]
        if not problem["loc"]:  # a rule that joins several settings and names them itself
            raise ConfigError(f"{name}: {problem['msg'].removeprefix('Value error, ')}") from error
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{name}: {where}: {problem['msg']} (got {problem['input']!r})") from error


def require(good: bool, name: str, value: object, range_: str) -> None:
    """Raises ConfigError for a ``value`` that is not in its range; NaN is in none."""
    if not good:
        raise ConfigError(f"{name} is {value!r}; it must be {range_}.")


def _switch(value: Any) -> Any:
    """``off`` and ``on`` for the booleans that YAML reads them as."""
    return {False: "off", True: "on"}[value] if isinstance(value, bool) else value


Switch = BeforeValidator(_switch)  # for Literal fields with the values "on" and "off"


def _env_name(value: str | None) -> str | None:
    if value and not re.fullmatch("[A-Z_][A-Z0-9_]*", value):  # API keys have small letters or dashes
        raise ValueError(
            "the NAME of an environment variable in capital letters is needed, never the key itself"
        )
    return value or None


EnvName = Annotated[str | None, AfterValidator(_env_name)]  # of an environment variable; "" is None
