"""A prompt says of thoughts and progress what an answer may hold, in every combination of settings."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from repro_rl.text import PromptBuilder, StepInputs, TextFormat, parse_action, parse_reflection
from repro_rl.text.prompts import ReflectStep
from repro_rl.text.turns import TurnPrompts

THOUGHT = "<think>the box is near</think>"
STEPS = [ReflectStep(1, "before", "up", "after", "after")]
INPUTS = StepInputs(
    instructions="Rules.", goal="Win.", observation="a room", admissible=["up"], step=1, max_steps=3
)
COMBINATIONS = [
    (style, think, progress, report, guided)
    for style, think, progress, report, guided in product(
        ("full", "compact"),
        ("required", "optional", "off"),
        (True, False),
        ("before", "after"),
        (True, False),
    )
    if not (guided and think == "required")  # refused
]


def reflection_prompts(builder: PromptBuilder) -> list[str]:
    """Of a window and of a conversation, won and lost."""
    return [
        text
        for won in (True, False)
        for text in (
            builder.reflect(
                instructions="Rules.",
                goal="Win.",
                steps=STEPS,
                won=won,
                score=float(won),
                first_observation="a room",
            ),
            TurnPrompts(builder).reflect(
                goal="Win.", observation="a room", length=1, won=won, score=float(won)
            ),
        )
    ]


@pytest.mark.parametrize(("style", "think", "progress", "report", "guided"), COMBINATIONS)
def test_every_combination(style: str, think: str, progress: bool, report: str, guided: bool) -> None:
    fmt = TextFormat(style, progress, think, report)  # type: ignore[arg-type]
    builder = PromptBuilder(fmt, guided=guided)

    plain = builder.action_target(40, "up").replace("<think></think>", "")
    demanded = "no_think" in parse_action(plain, fmt).defects
    allowed = style == "full" and not parse_action(THOUGHT + plain, fmt).defects
    for prompt in (builder.act(INPUTS), TurnPrompts(builder).act(INPUTS)):
        assert ("think" in prompt) == allowed
        assert ("1. Reason about" in prompt) == demanded
        assert ("1. You may reason" in prompt) == (allowed and not demanded)
        assert ("progress" in prompt) == progress

    written = builder.reflection_target([100]).replace("<think></think>", "")
    demanded = "no_think" in parse_reflection(written, fmt, 1).defects
    form = builder.reflection_form(1)
    assert form is None or form.render([100]) == written  # no room for more
    allowed = style == "full" and not guided and not parse_reflection(THOUGHT + written, fmt, 1).defects
    for prompt in reflection_prompts(builder):
        assert ("think" in prompt) == allowed
        assert ("First reason" in prompt) == demanded
        assert ("You may first reason" in prompt) == (allowed and not demanded)


def test_templates_of_ones_own_are_told(tmp_path: Path) -> None:
    (tmp_path / "reflect.jinja").write_text("{{ think }}")
    (tmp_path / "chat_reflect.jinja").write_text("{{ think }}")
    (tmp_path / "forward.jinja").write_text("{{ think }}")
    builder = PromptBuilder(TextFormat("full", think="optional"), template_dir=tmp_path, guided=True)
    assert set(reflection_prompts(builder)) == {"off"}
    assert builder.act(INPUTS) == "optional"
