"""The base class of every section of the settings, and the value types that sections share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from repro_rl.errors import ConfigError


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


def checked(kind: type[S], name: str, values: Mapping[str, Any]) -> S:
    """``kind`` with ``values``. Raises ConfigError with the first problem, after ``name``."""
    try:
        return kind(**values)
    except ValidationError as error:
        problem = error.errors()[0]
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
