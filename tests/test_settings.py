"""The base class of sections, and value types that sections share."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import ValidationError

from repro_rl.settings import EnvName, Section, Switch


class Example(Section):
    mode: Annotated[Literal["on", "off", "auto"], Switch] = "auto"
    key: EnvName = None


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
