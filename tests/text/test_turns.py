"""The user turns of an episode that is one conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repro_rl.errors import ConfigError
from repro_rl.text import PromptBuilder, StepInputs, TurnPrompts
from support.text_formats import COMPACT, COMPACT_PLAIN, FULL, LATE, step_inputs


def turn(turns: TurnPrompts, observation: str, step: int, **more: Any) -> str:
    return turns.act(StepInputs("", "", observation, ["up"], step, 9, **more))


def test_compact_turns_by_hand() -> None:
    turns = TurnPrompts(PromptBuilder(COMPACT))
    assert turn(turns, "a\nb", 1) == "a b progress"
    assert turn(turns, "a b", 1, demonstrations="demo x now") == "demo x now a b progress"
    assert turn(turns, "c", 4) == "c t3 progress"
    assert turns.reflect(goal="", observation="d", length=4, won=True, score=1.0) == "d t4 reflect won judge"
    assert turns.reflect(goal="", observation="", length=1, won=False, score=0.0) == "t1 reflect lost judge"
    plain = TurnPrompts(PromptBuilder(COMPACT_PLAIN))
    assert turn(plain, "c", 2) == "c t1 act"


def test_compact_turns_need_no_further_words() -> None:
    builder = PromptBuilder(COMPACT)
    turns = TurnPrompts(builder)
    words = builder.words(4, demonstrations=True) | {"up"}
    texts = [turn(turns, "up", t) for t in range(1, 5)]
    texts += [turns.reflect(goal="", observation="up", length=4, won=won, score=0.0) for won in (True, False)]
    assert {word for text in texts for word in text.split()} <= words


def test_turns_without_the_list_of_admissible_actions() -> None:
    listed, without = (TurnPrompts(PromptBuilder(FULL, admissible=each)) for each in (True, False))
    for step in (1, 4):
        text = listed.act(step_inputs(step))
        part = "\nPossible actions:\n- up\n- down\n" if step == 1 else "\n\nPossible actions:\n- up\n- down"
        assert part in text
        assert without.act(step_inputs(step)) == text.replace(part, "")


@pytest.mark.parametrize("fmt", [FULL, LATE])
def test_only_the_first_full_turn_holds_rules_and_goal(fmt: Any) -> None:
    turns = TurnPrompts(PromptBuilder(fmt))
    first, later = turns.act(step_inputs(1)), turns.act(step_inputs(4))
    for part in ("You push boxes.", "Put the box on the target.", "How to answer"):
        assert part in first
        assert part not in later
    assert later == "Step 4:\nview\n4\n\nPossible actions:\n- up\n- down"
    assert "seen" not in first + later  # past steps are earlier turns


def test_the_first_full_turn_announces_a_reflection_where_there_is_one() -> None:
    """The rest of the turn is the same, to the character."""
    told, silent = (
        TurnPrompts(PromptBuilder(FULL, reflects=each)).act(step_inputs(1)) for each in (True, False)
    )
    said = "After each answer you will see the new observation."
    announced = " When the attempt is over, you will be asked to look back at it."
    assert f"\n\n{said}{announced}\n\nYour task: " in told
    assert f"\n\n{said}\n\nYour task: " in silent
    assert told.replace(announced, "") == silent
    compact = [TurnPrompts(PromptBuilder(COMPACT, reflects=each)) for each in (True, False)]
    assert turn(compact[0], "a", 1) == turn(compact[1], "a", 1)


def test_the_full_question_gives_the_outcome() -> None:
    turns = TurnPrompts(PromptBuilder(FULL))
    won = turns.reflect(goal="goal", observation="view\nend", length=3, won=True, score=1.0)
    assert won.startswith("After step 3:\nview\nend\n")
    assert "it succeeded." in won
    assert "the 3 values, step 1 to step 3; the last is 100." in won
    assert won.count("Fit the values in between to the length of the attempt") == 1
    lost = turns.reflect(goal="goal", observation="", length=2, won=False, score=0.25)
    assert "After step" not in lost
    assert "it failed, with a score of 0.25" in lost
    assert "all below 100." in lost


def test_own_turn_templates_replace_ours(tmp_path: Path) -> None:
    (tmp_path / "chat_next.jinja").write_text("{{ step }}/{{ max_steps }}: {{ observation }}")
    turns = TurnPrompts(PromptBuilder(FULL, template_dir=tmp_path))
    more: dict[str, Any] = {"instructions": "I", "goal": "G", "admissible": [], "max_steps": 9}
    assert turns.act(StepInputs(observation="x", step=2, **more)) == "2/9: x"
    assert turns.act(StepInputs(observation="x", step=1, **more)).startswith("I\n")
    (tmp_path / "chat_first.jinja").write_text("{{ observation }}")
    turns = TurnPrompts(PromptBuilder(FULL, template_dir=tmp_path))
    with pytest.raises(ConfigError, match=r"chat_first\.jinja leaves out the demonstrations"):
        turns.act(StepInputs(observation="x", step=1, demonstrations="demo", **more))
