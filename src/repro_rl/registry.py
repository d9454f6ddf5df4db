"""The registry of everything that plugs in by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


class Registry(Generic[T]):
    """Maps names to values.

    ``kind`` is what messages call a value. ``group`` is an entry-point group: installed packages may announce
    names in it, which are loaded when a name is looked up. A registered name wins over an announced one.
    ``record``: makes what is kept of a value that was registered or announced; None: the value itself.
    """

    def __init__(self, kind: str, group: str | None = None, record: Callable[[Any], T] | None = None):
        self.kind, self.group, self.record = kind, group, record
        self._items: dict[str, T] = {}
        self._entry_points_read = False

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
            begun = sorted(known for known in self._items if name and known.startswith(name))[:2]
            raise UnknownNameError(
                f"Unknown {self.kind} {name!r}{did_you_mean(name, self._items, begun)}. {OWN_NAME}"
            )
        return self._items[name]

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
