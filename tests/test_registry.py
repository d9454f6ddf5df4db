"""Names to values, from this package and from others."""

from __future__ import annotations

import pytest

from repro_rl import registry
from repro_rl.errors import OWN_NAME, ConfigError, MissingDependencyError, UnknownNameError
from repro_rl.registry import Registry


class Point:
    """What ``importlib.metadata.entry_points`` gives."""

    def __init__(self, name: str, value: object):
        self.name, self.value, self.loads = name, "package.module:value", 0
        self._loaded = value

    def load(self) -> object:
        self.loads += 1
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def announced(monkeypatch: pytest.MonkeyPatch, *points: Point) -> list[str]:
    groups: list[str] = []

    def entry_points(*, group: str) -> tuple[Point, ...]:
        groups.append(group)
        return points

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return groups


def test_register_and_get() -> None:
    numbers: Registry[int] = Registry("number")
    numbers.register("two", 2)
    assert numbers.register("three")(3) == 3  # as a decorator
    assert (numbers.get("two"), numbers.get("three")) == (2, 3)
    assert numbers.names() == list(numbers) == ["three", "two"]


def test_an_unknown_name_names_the_nearest() -> None:
    numbers: Registry[int] = Registry("number")
    with pytest.raises(UnknownNameError, match=r"Unknown number 'x'\. Known: none"):
        numbers.get("x")
    numbers.register("seven", 7)
    with pytest.raises(UnknownNameError, match=r"Unknown number 'sevn'; did you mean 'seven'\? Known: seven"):
        numbers.get("sevn")


def test_a_name_of_another_kind_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_kinds", {})
    rules: Registry[int] = Registry("rule", setting="method.credit")
    animals: Registry[int] = Registry("animal", group="animals", setting="zoo.name")
    registry.add_kind("recipe", lambda: ["ape"], "-c {name}")
    rules.register("rloo", 1)
    with pytest.raises(UnknownNameError) as caught:
        animals.get("rloo")
    assert (
        str(caught.value)
        == f"'rloo' is a rule, not an animal: give method.credit=rloo. Known: none. {OWN_NAME}"
    )
    point = Point("ape", None)
    announced(monkeypatch, point)
    with pytest.raises(UnknownNameError) as caught:
        rules.get("ape")
    assert str(caught.value) == (
        f"'ape' is an animal or a recipe, not a rule: give zoo.name=ape or -c ape. Known: rloo. {OWN_NAME}"
    )
    assert point.loads == 0
    monkeypatch.setattr(registry, "entry_points", lambda *, group: ())
    registry.add_kind("town", lambda: ["ape"], "town={name}")
    animals.register("ape", 2)
    assert registry.other_kinds("ape", "rule") == (
        "'ape' is an animal, a recipe or a town, not a rule: give zoo.name=ape, -c ape or town=ape"
    )


def test_a_name_is_given_once() -> None:
    numbers: Registry[tuple[int, ...]] = Registry("number")
    value = (1,)
    numbers.register("one", value)
    numbers.register("one", value)  # the same again, as when a module is imported twice
    with pytest.raises(ConfigError, match="number 'one' is registered twice"):
        numbers.register("one", (2,))
    assert numbers.get("one") is value


def test_isolated_forgets_what_was_registered_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: Registry[int] = Registry("number", group="numbers")
    numbers.register("one", 1)
    groups = announced(monkeypatch, Point("two", 2))

    def fails_inside() -> None:
        with numbers.isolated():
            numbers.register("three", 3)
            assert numbers.names() == ["one", "three", "two"]
            raise KeyError

    with pytest.raises(KeyError):
        fails_inside()
    monkeypatch.setattr(registry, "entry_points", lambda *, group: groups.append(group) or ())
    assert numbers.names() == ["one"]
    assert groups == ["numbers", "numbers"]  # entry points are read anew


def test_entry_points_are_read_once_and_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = Point("far", 9)
    groups = announced(monkeypatch, point, Point("near", 0))
    numbers: Registry[int] = Registry("number", group="numbers")
    numbers.register("near", 1)
    assert numbers.get("near") == 1
    assert groups == []
    assert numbers.get("far") == 9
    assert numbers.names() == ["far", "near"]
    assert numbers.get("near") == 1  # a name that is taken stays
    assert (groups, point.loads) == (["numbers"], 1)


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (
        ImportError("no module named lib"),
        AttributeError("no module named lib"),
        ValueError("lib"),
    ):
        announced(monkeypatch, Point("far", error))
        numbers: Registry[int] = Registry("number", group="numbers")
        named = r"number 'far' \(package\.module:value\) .*" + f"{type(error).__name__}: {error}"
        with pytest.raises(MissingDependencyError, match=named):
            numbers.get("far")


def test_what_is_announced_and_of_another_form_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was imported well, so the message is not about a package that is missing."""

    def whole(value: object) -> int:
        raise ConfigError("A number must be whole.")

    announced(monkeypatch, Point("far", 0.5))
    numbers: Registry[int] = Registry("number", group="numbers", record=whole)
    with pytest.raises(ConfigError, match=r"^A number must be whole\.$"):
        numbers.get("far")


def test_a_decorator_without_a_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Register a thing under a name, .*; not <function"):
        Registry("thing").register(lambda: 1)  # type: ignore[arg-type]
