"""JSON documents: RFC 8259 and nothing else, bounded in depth, number of values and size of numbers.

A name that an object has twice is an error: which value counts, the RFC leaves open (section 4).
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from repro_rl.errors import DataError
from repro_rl.files.limits import MAX_DEPTH, MAX_INTEGER, MAX_TEXT, MAX_VALUES
from repro_rl.files.reading import decode, read_bytes

DIGITS = len(str(MAX_INTEGER))
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
Kinds = Mapping[str, type | tuple[type, ...]]


def parse_json(
    data: bytes | str,
    *,
    file: object = None,
    record: object = None,
    constants: bool = False,
    surrogates: bool = False,
) -> Any:
    """The value of a JSON text. Raises DataError naming ``file`` and ``record``.

    ``constants``: accept NaN and Infinity, which Python writes and JSON does not have; ``surrogates``: accept
    half characters, which no file can hold.
    """
    text = decode(data, file=file, record=record) if isinstance(data, bytes) else data
    try:
        check_count(text)
        value = (_LENIENT if constants else _STRICT).decode(text)
        check_depth(value)
        if not surrogates and SURROGATE.search(text):
            for part in _texts(value):
                part.encode()
    except RecursionError as error:
        raise DataError(_TOO_DEEP, file=file, record=record) from error
    except UnicodeEncodeError as error:
        raise DataError("holds half a character (a lone surrogate)", file=file, record=record) from error
    except json.JSONDecodeError as error:
        line = "" if error.lineno == 1 else f"line {error.lineno}, "
        message = f"not JSON: {error.msg} ({line}column {error.colno})"
        raise DataError(message, file=file, record=record) from error
    except ValueError as error:
        raise DataError(str(error), file=file, record=record) from error
    return value


def parse_object(
    data: bytes | str, *, file: object = None, record: object = None, constants: bool = False
) -> dict[str, Any]:
    """The JSON object of a text. Raises DataError as ``parse_json``, and for another value."""
    value = parse_json(data, file=file, record=record, constants=constants)
    if not isinstance(value, dict):
        raise DataError(f"a JSON object was expected, not {kind_of(value)}", file=file, record=record)
    return value


def read_json(
    path: Path, what: str = "JSON object", fields: Kinds | None = None, advice: str = ""
) -> dict[str, Any]:
    """The JSON object in a file, UTF-8.

    Raises DataError naming the file when it cannot be read, holds something else, or lacks one of ``fields``,
    each with the type it must have. ``what`` the file should hold and the ``advice`` are in the message.
    """
    try:
        value = parse_object(read_bytes(path))
        for name, kind in (fields or {}).items():
            if not _is_a(value.get(name), kind):
                raise DataError(f"{name!r} is missing or of another type")
    except DataError as error:
        reason = str(error).removeprefix(f"file {path}: ")
        raise DataError(f"no {what} ({reason}){advice}.", file=path) from error
    return value


def read_json_if_any(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no such file. Raises DataError for a broken one."""
    return read_json(path) if path.exists() else {}


def kind_of(value: object) -> str:
    """What a person calls the type of a JSON value."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def finite(value: object) -> TypeGuard[float]:
    """Whether a value is a number, Python's or numpy's, neither NaN nor infinite; true and false are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def check_depth(value: Any) -> None:
    """Raises ValueError for a value nested deeper than the limit."""
    level, depth = [value], 0
    while level := [item for item in level if type(item) is dict or type(item) is list]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        level = [
            item
            for part in level
            for item in (part.values() if type(part) is dict else part)
            if type(item) is dict or type(item) is list
        ]


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of objects too."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack += item
            stack += item.values()
        elif isinstance(item, list):
            stack += item


def _is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """isinstance, but true and false are no numbers."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def check_count(text: str) -> None:
    """Raises ValueError for more values than the limit, before they take any memory."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"is larger than the limit of {MAX_TEXT:,} characters")
    if _marks(text) > MAX_VALUES and _marks(STRING.sub("", text)) > MAX_VALUES:
        raise ValueError(f"holds more values than the limit of {MAX_VALUES:,}")


def _marks(text: str) -> int:
    """At least the number of values less one: each begins a list or object, or follows a comma."""
    return text.count(",") + text.count("[") + text.count("{")


def _integer(text: str) -> int:
    if len(text) <= DIGITS + 1 and abs(value := int(text)) <= MAX_INTEGER:
        return value
    raise ValueError(f"holds an integer of {len(text.lstrip('-')):,} digits; the limit is 64 bits")


def _number(text: str) -> float:
    value = float(text)
    if value - value == 0.0:
        return value
    raise ValueError(f"holds the number {text[:40]}; the limit is 1.8e308")


def _refuse(text: str) -> float:
    raise ValueError(f"holds {text}, which is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"has the name {twice[:80]!r} twice in one object")
    return value


def _decoder(constant: Callable[[str], Any] | None) -> json.JSONDecoder:
    return json.JSONDecoder(
        parse_int=_integer, parse_float=_number, parse_constant=constant, object_pairs_hook=_object
    )


_TOO_DEEP = f"is nested deeper than the limit of {MAX_DEPTH} lists and objects"
_STRICT, _LENIENT = _decoder(_refuse), _decoder(None)
