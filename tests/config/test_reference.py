"""The settings reference: every setting is described, and docs/settings.md is the one of this code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from repro_rl.config import RunConfig, reference
from repro_rl.config.named_parts import find_settings
from repro_rl.config.values import type_of
from repro_rl.errors import ConfigError
from repro_rl.settings import Section

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
ALL = [row for section in reference.sections() for row in section.settings]


def test_every_setting_has_a_description() -> None:
    assert [row.name for row in ALL if not row.description] == []


def test_every_section_says_what_it_is_for() -> None:
    assert [section.name for section in reference.sections() if not section.about] == []


def test_every_name_is_one_that_an_override_may_have() -> None:
    names = reference.setting_names()
    assert len(names) == len(set(names)) > 150
    assert [name for name in names if type_of(RunConfig, name.split(".")) is None] == []


def test_the_page_is_made_by_the_command() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.as_markdown(), (
        "run: repro-rl settings --markdown > docs/settings.md"
    )


class Example(Section):
    """An example."""

    count: int = Field(3, gt=0, le=9, description="a")
    share: float | None = Field(None, ge=0, description="b")
    word: Literal["on", "off"] = Field("on", description="c")
    either: Annotated[float, Field(gt=0)] | Literal["auto"] = Field("auto", description="d")
    pair: tuple[int, float] = Field((1, 0.5), description="e")
    many: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field((0.0,), description="f")
    switch: bool = Field(False, description="g")
    needed: str = Field(description="h")


def test_types_and_defaults_are_written_for_people() -> None:
    rows = Example.model_fields
    assert {name: reference.type_text(info) for name, info in rows.items()} == {
        "count": "int > 0 ≤ 9",
        "share": "float ≥ 0 or null",
        "word": "on | off",
        "either": "float > 0 or auto",
        "pair": "[int, float]",
        "many": "list of float ≥ 0 < 1",
        "switch": "true | false",
        "needed": "text",
    }
    (section,) = reference._walk(Example, "x.")
    assert [row.default for row in section.settings] == [
        "3",
        "null",
        "'on'",
        "auto",
        "[1, 0.5]",
        "[0.0]",
        "false",
        "",
    ]
    assert (section.name, section.about) == ("x", "An example.")


def test_a_section_a_setting_an_environment_and_a_wrong_name() -> None:
    assert [found.name for found in find_settings("train")] == [
        *("train", "train.loss", "train.kl", "train.tracking"),
    ]
    (found,) = find_settings("train.lr")
    assert [row.name for row in found.settings] == ["train.lr"]
    (found,) = find_settings("sokoban")
    assert "max_steps" in [row.name for row in found.settings]
    assert [row.name for row in find_settings("env.settings.levels")[0].settings] == ["levels"]
    with pytest.raises(ConfigError, match=r"did you mean 'train\.lr'"):
        find_settings("train.lrr")
