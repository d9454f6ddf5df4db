"""The base class of sections, and value types that sections share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from repro_rl.errors import ConfigError
from repro_rl.settings import EnvName, Section, Switch, checked


class Example(Section):
    mode: Annotated[Literal["on", "off", "auto"], Switch] = "auto"
    key: EnvName = None
    pair: tuple[float, int] = (0.5, 1)
    some: dict[str, int] = Field({"a": 1}, min_length=1)
    few: list[int] = Field([1], max_length=2)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="modus"):
        Example(modus="on")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="mode"):
        Example().mode = "maybe"  # type: ignore[assignment]


@pytest.mark.parametrize(("value", "mode"), [(False, "off"), (True, "on"), ("off", "off"), ("auto", "auto")])
def test_a_switch_reads_the_booleans_of_yaml(value: object, mode: str) -> None:
    assert Example(mode=value).mode == mode  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "key"), [("API_KEY", "API_KEY"), ("_K2", "_K2"), ("", None), (None, None)])
def test_the_name_of_an_environment_variable(value: str | None, key: str | None) -> None:
    assert Example(key=value).key == key


@pytest.mark.parametrize("value", ["sk-abc", "Key", "2KEY", "A KEY", "KEY\n"])
def test_a_key_itself_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="NAME of an environment variable"):
        Example(key=value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pair": [1]}, "x: pair: Give a list of 2 values, such as [A, B] (got [1])"),
        ({"pair": [1, 2, 3]}, "x: pair: Give a list of 2 values, such as [A, B] (got [1, 2, 3])"),
        ({"pair": 3}, "x: pair: Input should be a list, such as [A, B] (got 3)"),
        ({"some": {}}, "x: some: Give at least 1 entry, such as {KEY: VALUE} (got {})"),
        ({"few": [1, 2, 3]}, "x: few: Give a list of at most 2 values, such as [A, B] (got [1, 2, 3])"),
        ({"few": 3}, "x: few: Input should be a list, such as [A, B] (got 3)"),
    ],
)
def test_a_list_of_a_wrong_length_says_what_to_give(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(Example, "x", values)
    assert str(caught.value) == message
