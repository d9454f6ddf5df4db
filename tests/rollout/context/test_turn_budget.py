"""Token budgets of user turns: what is reserved, and what a turn gives up to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from repro_rl.rollout.context import ContextLimits
from repro_rl.rollout.context.turn_budget import OUTCOMES, TurnBudget
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.text.prompts import StepInputs
from repro_rl.text.turns import TurnPrompts
from support.episodes import COMPACT, hand_episode, hand_step

FULL = TurnPrompts(PromptBuilder(TextFormat("full", progress=True, think="off")))
LIMITS = ContextLimits(
    prompt=10**4, reflect_prompt=1, conversation=10**5, action=20, reflection=30, cache=10**6
)
OBSERVATION = " ".join(f"word{i}" for i in range(200))
INPUTS = StepInputs("rules", "goal", OBSERVATION, ["up"], step=2, max_steps=9)


def words(text: str, *, first: bool = False) -> int:
    return len(text.split())


def budget(turns: TurnPrompts = FULL, **limits: Any) -> TurnBudget:
    return TurnBudget(turns, words, replace(LIMITS, **limits))


def test_the_longest_reflection_of_any_outcome_is_reserved():
    questions = [
        words(FULL.reflect(goal="goal", observation="", length=4, won=won, score=score))
        for won, score in OUTCOMES
    ]
    assert budget().reserved("goal", 4) == 30 + max(questions)


def test_an_observation_is_cut_by_the_limit_of_turns_alone():
    whole = words(FULL.act(INPUTS))
    fitted = budget(prompt=whole).fit_turn(INPUTS, [""], used=0)
    assert fitted is not None
    assert (fitted.text, fitted.shortened) == (FULL.act(INPUTS), "")
    fitted = budget(prompt=whole - 50).fit_turn(INPUTS, [""], used=0)
    assert fitted is not None
    assert words(fitted.text) <= whole - 50
    assert "left out" in fitted.text
    assert fitted.shortened == "observation"
    # a nearly full conversation ends instead
    needed = whole + LIMITS.action + budget().reserved("goal", 2)
    assert budget(conversation=needed + 7).fit_turn(INPUTS, [""], used=7) is not None
    assert budget(conversation=needed + 6).fit_turn(INPUTS, [""], used=7) is None


def test_the_first_turn_gives_up_demonstrations_then_its_observation():
    first = replace(INPUTS, step=1)
    whole = words(FULL.act(first))
    texts = ["demo " * 90, "demo " * 10, ""]
    fitted = budget(prompt=whole + 50).fit_turn(first, texts, used=0)
    assert fitted is not None
    assert (fitted.text.count("demo "), fitted.shortened) == (10, "")
    assert texts == ["demo " * 10, ""]
    needed = whole + LIMITS.action + budget().reserved("goal", 1)
    fitted = budget(conversation=needed - 40).fit_turn(first, texts, used=0)
    assert fitted is not None
    assert (texts, fitted.shortened) == ([""], "observation")


@pytest.mark.parametrize("step", [1, 2])
def test_compact_turns_are_never_cut(step):
    turns, inputs = TurnPrompts(COMPACT), replace(INPUTS, step=step)
    whole = words(turns.act(inputs))
    assert budget(turns, prompt=whole).fit_turn(inputs, [""], used=0) is not None
    assert budget(turns, prompt=whole - 1).fit_turn(inputs, [""], used=0) is None


def test_the_last_observation_gives_way_before_the_reflection_does():
    episode = hand_episode([hand_step(1)], final_observation=OBSERVATION)
    bare = words(FULL.reflect(goal="goal", observation="", length=1, won=False, score=0.0))

    def question(limit: int) -> tuple[str, bool]:
        """In a conversation that leaves ``limit`` tokens for it."""
        return budget(conversation=1000 + limit + LIMITS.reflection).fit_question(episode, used=1000)

    text, cut = question(bare + 300)
    assert (OBSERVATION in text, cut) == (True, False)
    text, cut = question(bare + 60)
    assert cut
    assert "left out" in text
    assert words(text) <= bare + 60
    text, cut = question(bare)
    assert (words(text), cut) == (bare, True)
    assert budget(prompt=bare).fit_question(episode, used=0) == (text, True)
