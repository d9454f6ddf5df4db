"""What every section of the settings is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def _switch(value: Any) -> Any:
    """YAML reads a bare off as false, and on as true; people mean the words."""
    return {False: "off", True: "on"}[value] if isinstance(value, bool) else value


Switch = BeforeValidator(_switch)


def _env_name(value: str | None) -> str | None:
    if value and not re.fullmatch("[A-Z_][A-Z0-9_]*", value):  # keys have small letters or dashes
        raise ValueError(
            "the NAME of an environment variable in capital letters is needed, never the key itself"
        )
    return value or None


EnvName = Annotated[str | None, AfterValidator(_env_name)]
