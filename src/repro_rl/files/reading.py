"""Files are read as UTF-8, and an error names the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError


def read_json(
    path: Path,
    what: str = "JSON object",
    fields: Mapping[str, type | tuple[type, ...]] | None = None,
    advice: str = "",
) -> dict[str, Any]:
    """The JSON object in a file, UTF-8.

    Raises DataError naming the file when it cannot be read, holds something else, or lacks one of ``fields``,
    each with the type it must have. ``what`` the file should hold and the ``advice`` are in the message.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"an object was expected, not {type(value).__name__}")
        for name, kind in (fields or {}).items():
            if not isinstance(value.get(name), kind):
                raise ValueError(f"{name!r} is missing or of another type")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"no {what} ({error}){advice}.", file=path) from error
    return value


def read_json_if_any(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none that can be read."""
    try:
        return read_json(path)
    except DataError:
        return {}


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines, UTF-8; none without the file.

    A line that is no JSON is left out, as a killed run leaves its last one.
    """
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                rows.append(value)
    return rows
