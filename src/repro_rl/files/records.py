"""Records are checked by pydantic; an error names file, record and field."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from repro_rl.errors import DataError

T = TypeVar("T")
MAX_SHOWN = 60  # characters of a wrong value in a message

# Types of the fields of records. Nothing is converted: a number is no text, true is no number.
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Points = Annotated[int, Field(strict=True, ge=0, le=100)]


def adapter(schema: Any) -> TypeAdapter[Any]:
    """pydantic's validator of a dataclass, TypedDict or other type, built once."""
    return _adapter(schema)


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def check_record(schema: type[T], value: Any, *, file: object = None, record: object = None) -> T:
    """``value`` as ``schema`` says. Raises DataError naming the first field that is missing or wrong."""
    try:
        return adapter(schema).validate_python(value)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise wrong_field(error, file=file, record=record) from error


def wrong_field(error: ValidationError, *, file: object = None, record: object = None) -> DataError:
    """The first problem of a validation as a DataError."""
    first = error.errors(include_url=False)[0]
    shown = "" if first["type"] == "missing" else f" (got {_short(first['input'])})"
    field = ".".join(map(str, first["loc"])) or None
    return DataError(f"{first['msg']}{shown}", file=file, record=record, field=field)


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value[: 2 * MAX_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
