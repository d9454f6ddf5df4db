"""The base class of every section of the settings, and the value types that sections share."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from repro_rl.errors import ConfigError


class Section(BaseModel):
    """A group of settings, also checked on assignment.

    Raises pydantic's ValidationError for an unknown field or a wrong value.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


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
