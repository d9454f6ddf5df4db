"""Guided texts: the text itself, and what servers are asked with."""

from __future__ import annotations

import json
import re

import pytest

from repro_rl.errors import ConfigError, DataError
from repro_rl.text import GuidedText, PromptBuilder, TextFormat, parse_reflection
from support.text_formats import COMPACT, FORMATS, FULL, THINK

SMALL = GuidedText(("a.b ", ' "c\\', "\nend"), (0, 7, 100))


@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS if fmt.think != "required"])
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_a_guided_reflection_is_the_target_of_its_values(fmt: TextFormat, steps: int) -> None:
    builder = PromptBuilder(fmt, resolution=10, guided=True)
    form = builder.reflection_form(steps)
    assert form is not None
    assert len(form) == steps
    values = [10 * (t % 11) for t in range(steps)]
    assert form.render(values) == builder.reflection_target(values)
    assert parse_reflection(form.render(values), fmt, steps).values == tuple(values)
    assert re.fullmatch(form.regex(), form.render(values))
    assert not re.fullmatch(form.regex(), form.render(values) + " and more")


def test_the_values_are_those_that_targets_may_hold() -> None:
    full = PromptBuilder(FULL, resolution=10, guided=True).reflection_form(2)
    compact = PromptBuilder(COMPACT, resolution=50, guided=True).reflection_form(2)
    assert full is not None
    assert compact is not None
    assert full.values == tuple(range(101))
    assert compact.values == (0, 50, 100)


def test_free_reflections_have_no_form_and_thoughts_no_place() -> None:
    assert PromptBuilder(FULL).reflection_form(3) is None
    with pytest.raises(
        ConfigError, match=r"such a reflection has no thought, but prompt.think is 'required'"
    ):
        PromptBuilder(THINK, guided=True)


def test_regex_grammar_and_schema_by_hand() -> None:
    assert SMALL.render([0, 100]) == 'a.b 0 "c\\100\nend'
    assert SMALL.regex() == 'a\\.b (?:0|7|100) "c\\\\(?:0|7|100)\\nend'
    assert SMALL.grammar() == (
        'root ::= "a.b " number " \\"c\\\\" number "\\nend"\nnumber ::= "0" | "7" | "100"\n'
    )
    number = {"type": "integer", "minimum": 0, "maximum": 100}
    assert SMALL.schema() == {
        "type": "object",
        "properties": {"step_1": number, "step_2": number},
        "required": ["step_1", "step_2"],
        "additionalProperties": False,
    }


def test_an_object_of_the_schema_becomes_the_text() -> None:
    assert SMALL.of_object(json.loads('{"step_2": 100, "step_1": 7}')) == SMALL.render([7, 100])
    for wrong in (
        '{"step_1": 7}',
        '{"step_1": 7, "step_2": 8}',
        '{"step_1": 7, "step_2": true}',
        "[7, 7]",
        "7",
    ):
        with pytest.raises(DataError, match="not an object of 2 integers: step_"):
            SMALL.of_object(json.loads(wrong))
