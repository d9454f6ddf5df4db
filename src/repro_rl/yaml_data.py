"""Tables of words and numbers: YAML files beside the code that uses them, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from repro_rl.errors import DataError

T = TypeVar("T")
TABLE = ConfigDict(extra="forbid")  # __pydantic_config__ of the dataclasses: unknown keys are errors
_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def read_yaml(path: Path, schema: type[T]) -> T:
    """The file's content as ``schema``: a dataclass, or a type such as ``dict[str, str]``.

    Raises DataError naming the file and the key.
    """
    try:
        with open(path, "rb") as file:
            content = yaml.load(file, _LOADER)
        return TypeAdapter(schema).validate_python(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read as YAML: {error}", file=path) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(first["msg"], file=path, field=".".join(map(str, first["loc"]))) from error
