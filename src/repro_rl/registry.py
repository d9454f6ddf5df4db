"""The registry of everything that plugs in by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from repro_rl.errors import (
    OWN_NAME,
    ConfigError,
    MissingDependencyError,
    UnknownNameError,
    did_you_mean,
    place_of,
)

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class NamedKind:
    """A kind of things that people call by name."""

    name: str  # "credit rule"
    names: Callable[[], Collection[str]]
    given: str  # how a person gives one, with {name}: "method.credit={name}"


_kinds: dict[str, NamedKind] = {}  # by name


def add_kind(name: str, names: Callable[[], Collection[str]], given: str) -> None:
    """Let messages know names of this kind where they are given in the place of another kind."""
    _kinds[name] = NamedKind(name, names, given)


def other_kinds(name: str, kind: str) -> str:
    """ "'x' is a method, not a credit rule: give method=x" for a ``name`` of other kinds, or "".

    ``kind``: what was asked for, which no ``name`` of it is.
    """
    found = [other for other in _kinds.values() if other.name != kind and name in other.names()]
    if not found:
        return ""
    kinds = _alternatives([_with_article(other.name) for other in found])
    ways = _alternatives([other.given.format(name=name) for other in found])
    return f"{name!r} is {kinds}, not {_with_article(kind)}: give {ways}"


def _alternatives(texts: Sequence[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    return " or ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


class Registry(Generic[T]):
    """Maps names to values.

    ``kind`` is what messages call a value. ``group`` is an entry-point group: installed packages may announce
    names in it, which are loaded when a name is looked up. A registered name wins over an announced one.
    ``record``: makes what is kept of a value that was registered or announced; None: the value itself.
    ``setting``: the setting whose values are these names, if one is.
    """

    def __init__(
        self,
        kind: str,
        group: str | None = None,
        record: Callable[[Any], T] | None = None,
        setting: str | None = None,
    ):
        self.kind, self.group, self.record = kind, group, record
        self._items: dict[str, T] = {}
        self._entry_points_read = False
        if setting is not None:
            add_kind(kind, self._told, f"{setting}={{name}}")

    def register(self, name: str, value: T | None = None) -> Callable[[T], T]:
        """Add ``value`` under ``name``; without a value, return a decorator.

        Raises ConfigError when the name belongs to another value, or is no string.
        """
        if not isinstance(name, str):
            raise ConfigError(f'Register a {self.kind} under a name, e.g. register("mine"); not {name!r}.')

        def add(item: T) -> T:
            kept = self._kept(item)
            if self._items.setdefault(name, kept) != kept:
                raise ConfigError(f"{self.kind} {name!r} is registered twice; choose another name.")
            return item

        if value is not None:
            add(value)
        return add

    def get(self, name: str) -> T:
        """Return the value called ``name``.

        Raises UnknownNameError with the nearest name, and MissingDependencyError when an announced package
        cannot be imported.
        """
        if name not in self._items:
            self._read_entry_points()
        if name not in self._items:
            raise UnknownNameError(self.unknown(name))
        return self._items[name]

    def unknown(self, name: str, more: Iterable[str] = ()) -> str:
        """The message for a ``name`` that is not here: of which kind it is, or the nearest name.

        ``more``: names that would do as well.
        """
        known = sorted({*self._items, *more})
        if elsewhere := other_kinds(name, self.kind):
            return f"{elsewhere}. Known: {', '.join(known) or 'none'}. {OWN_NAME}"
        begun = [item for item in known if name and item.startswith(name)][:2]
        return f"Unknown {self.kind} {name!r}{did_you_mean(name, known, begun)}. {OWN_NAME}"

    def names(self) -> list[str]:
        """All names, sorted. Raises MissingDependencyError as ``get`` does."""
        self._read_entry_points()
        return sorted(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Context manager for tests: names registered inside are removed at the end."""
        items, read = dict(self._items), self._entry_points_read
        try:
            yield
        finally:
            self._items, self._entry_points_read = items, read

    def _kept(self, value: Any) -> T:
        return value if self.record is None else self.record(value)

    def _told(self) -> set[str]:
        """All names, without a look into packages that announce some."""
        announced = () if self.group is None else entry_points(group=self.group)
        return {*self._items, *(point.name for point in announced)}

    def _read_entry_points(self) -> None:
        if self.group is None or self._entry_points_read:
            return
        for point in entry_points(group=self.group):
            if point.name in self._items:
                continue
            try:
                loaded = point.load()
            except (Exception, SystemExit) as error:  # whatever the module raises: it is not ours
                raise MissingDependencyError(
                    f"The {self.kind} {point.name!r} ({point.value}) cannot be imported: "
                    f"{type(error).__name__}: {error}{place_of(error)}. "
                    f"Install what it needs, or uninstall the package that announces it."
                ) from error
            if point.name not in self._items:  # its module may have registered it
                self._items[point.name] = self._kept(loaded)
        self._entry_points_read = True
