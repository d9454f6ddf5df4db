"""YAML files: settings and tables of words and numbers, bounded in size and depth, and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, ValidationError

from repro_rl.errors import DataError
from repro_rl.files.limits import MAX_DEPTH, MAX_INTEGER, MAX_YAML, MAX_YAML_VALUES
from repro_rl.files.reading import read_text
from repro_rl.files.records import adapter, wrong_field

T = TypeVar("T")
TABLE = ConfigDict(extra="forbid")  # __pydantic_config__ of the dataclasses: unknown keys are errors
_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_TEXT_LOADER: Any = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader  # every scalar is a text
_TOO_DEEP = f"is nested deeper than the limit of {MAX_DEPTH} lists and mappings"


def read_yaml(path: Path, schema: type[T]) -> T:
    """The file's content as ``schema``: a dataclass, or a type such as ``dict[str, str]``.

    Raises DataError naming the file and the key.
    """
    try:
        return adapter(schema).validate_python(load_yaml(path))  # type: ignore[no-any-return]
    except ValidationError as error:
        raise wrong_field(error, file=path) from error


def load_yaml(path: Path, *, as_texts: bool = False) -> Any:
    """The value in a YAML file, UTF-8; None for an empty one. See ``parse_yaml``."""
    return parse_yaml(read_text(path, MAX_YAML), file=path, as_texts=as_texts)


def parse_yaml(text: str, *, file: object = None, as_texts: bool = False) -> Any:
    """The value of a YAML text; ``as_texts``: with every scalar as the text that is written.

    Raises DataError naming ``file`` for what is broken or beyond a limit.
    """
    try:
        _check_structure(text)
        value = yaml.load(text, _TEXT_LOADER if as_texts else _LOADER)
        _check_numbers(value)
    except yaml.YAMLError as error:
        # libyaml 0.2.6 has a limit of its own for [ and {, and reads ahead, so it may come before ours.
        deep = "maximum nesting depth" in str(error)
        raise DataError(_TOO_DEEP if deep else f"cannot be read as YAML: {error}", file=file) from error
    # Of constructors: 2020-13-45 is no date, 9... (5,000 digits) no integer, [a] no key.
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, DataError):
            raise DataError(str(error), file=file) from error
        raise DataError(f"cannot be read as YAML: {error}", file=file) from error
    return value


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    anchor: str | None
    before: int  # values before it
    mapping: bool
    key_next: bool = True  # of a mapping: the next node is a key
    keys: set[str] = field(default_factory=set)

    def add(self, event: yaml.NodeEvent) -> None:
        """Count ``event`` as the next node here. Raises DataError for a key that is there already."""
        if self.mapping and self.key_next and isinstance(event, yaml.ScalarEvent):
            if event.value in self.keys and event.value != "<<":  # several mappings may be merged
                where = f" in line {event.start_mark.line + 1}" if event.start_mark else ""
                raise DataError(
                    f"has the key {event.value[:80]!r} a second time{where}; only one of them would count"
                )
            self.keys.add(event.value)
        self.key_next = not self.key_next


def _check_structure(text: str) -> None:
    """Raises DataError beyond a limit or for a key that is twice in a mapping, before anything is built.

    libyaml itself kills the process at some depth. An alias counts as all that it stands for: nine lines of
    ten aliases each are a thousand million values.
    """
    count, depth = 0, 0
    stack: list[_Open] = []
    size_of: dict[str, int] = {}  # values behind an anchor that is complete
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            ended = stack.pop()
            if ended.anchor:
                size_of[ended.anchor] = count - ended.before
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        if stack:
            stack[-1].add(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in size_of and any(event.anchor == around.anchor for around in stack):
                raise DataError(f"the anchor &{event.anchor} holds itself")
            count += size_of.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                size_of[event.anchor] = 1
        else:
            stack.append(_Open(event.anchor, count, isinstance(event, yaml.MappingStartEvent)))
            count += 1
        depth = max(depth, len(stack))
        if depth > MAX_DEPTH:
            raise DataError(_TOO_DEEP)
        if count > MAX_YAML_VALUES:
            raise DataError(
                f"holds more values than the limit of {MAX_YAML_VALUES:,}, aliases counted each time"
            )


def _check_numbers(value: Any) -> None:
    """Raises DataError for a number that is not finite, or beyond 64 bits."""
    for item in _scalars(value):
        if isinstance(item, float) and not math.isfinite(item):
            raise DataError(f"holds the number {item}; only finite numbers are allowed")
        if isinstance(item, int) and abs(item) > MAX_INTEGER:
            raise DataError(f"holds an integer of about 2^{item.bit_length()}; the limit is 64 bits")


def _scalars(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set):
            stack += item
        else:
            yield item
