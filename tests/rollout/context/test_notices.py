"""``prompt.notices``: a prompt says that the last answer had no effect, and why; also in demonstrations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from repro_rl.config import load_config
from repro_rl.policy import SamplingSettings
from repro_rl.rollout import Actor, EnvPool, PlayOptions, RolloutRequest
from repro_rl.rollout.context import ContextLimits, make_context
from repro_rl.rollout.context.base import replayed
from repro_rl.rollout.context.chat_demos import ChatDemos
from repro_rl.run.setup import build_prompts
from repro_rl.text import PromptBuilder, StepInputs, TextFormat, TurnPrompts
from repro_rl.types import Trajectory
from support.conversations import SOKOBAN
from support.scripted import LetterText, ScriptedPolicy, word_codec
from support.text_formats import COMPACT, FULL, step_inputs

NO_ACTION = "Your last answer had no action inside <action> and </action>, so nothing was done.\n"
IMPOSSIBLE = "Your last action was not possible, so nothing was done.\n"
PLAIN = TextFormat("full", progress=False, think="off")
LIMITS = ContextLimits(
    prompt=10**5, reflect_prompt=1, conversation=10**6, action=100, reflection=1, cache=10**7
)
ANSWERS = ("what now?", "<action>fly</action>", "<action>up</action>", "<action>down</action>", "no")


@pytest.mark.parametrize(("notice", "line"), [("no_action", NO_ACTION), ("impossible", IMPOSSIBLE), ("", "")])
def test_the_line_by_hand(notice: Any, line: str) -> None:
    says, silent = PromptBuilder(FULL, notices=True), PromptBuilder(FULL)
    inputs = step_inputs(4, notice=notice)
    turn = TurnPrompts(silent).act(inputs)
    assert turn.startswith("Step 4:\nview\n4")
    assert TurnPrompts(says).act(inputs) == line + turn
    prompt = silent.act(inputs)
    assert says.act(inputs) == prompt.replace("You are at step 4", f"{line}You are at step 4")
    compact = step_inputs(4, notice=notice, observation="a b")
    assert PromptBuilder(COMPACT, notices=True).act(compact) == PromptBuilder(COMPACT).act(compact)


def said(prompt: str) -> str:
    return next((name for name, line in (("none", NO_ACTION), ("refused", IMPOSSIBLE)) if line in prompt), "")


@pytest.fixture(params=["window", "chat"])
def played(request: pytest.FixtureRequest) -> tuple[str, EnvPool, Trajectory]:
    """An episode with an answer that has no action, one that is refused, and two that are carried out."""
    pool = EnvPool("sokoban", {**SOKOBAN, "style": "grid"})
    policy = ScriptedPolicy(lambda prompt, key: ANSWERS[(len(policy.calls) - 1) % len(ANSWERS)], LetterText())
    actor = Actor(policy, PromptBuilder(PLAIN, notices=True), SamplingSettings(100))
    task = pool.first.panel("train").ids[0]
    context = make_context(request.param, pool, LIMITS)
    (trajectory,) = context.play([RolloutRequest(task, 0)], actor, None, PlayOptions("t"))
    return request.param, pool, trajectory


def test_an_episode_is_told_and_a_demonstration_of_it_as_well(
    played: tuple[str, EnvPool, Trajectory],
) -> None:
    context, pool, trajectory = played
    steps = trajectory.steps
    assert [step.valid for step in steps[:2]] == [False, False]
    expected = [
        "" if before is None or before.valid else "refused" if before.action else "none"
        for before in (None, *steps[:-1])
    ]
    assert expected[:3] == ["", "none", "refused"]
    assert [said(step.prompt) for step in steps] == expected
    prompts = PromptBuilder(PLAIN, notices=True)

    def texts(inputs: Iterator[tuple[StepInputs, Any]]) -> list[str]:
        builder = prompts if context == "window" else TurnPrompts(prompts)
        return [said(builder.act(each)) for each, _ in inputs]

    assert texts(replayed(pool.first, trajectory)) == expected
    unlisted = PromptBuilder(PLAIN, notices=True, admissible=False)
    demos = ChatDemos(pool.first, word_codec(set()), unlisted, LIMITS)
    assert texts(demos._inputs(trajectory)) == expected


def test_the_setting_reaches_the_prompts() -> None:
    for recipe, change, shown in (
        ("webshop-135m", [], True),
        ("webshop-135m", ["prompt.notices=off"], False),
        ("alfworld-135m", [], False),
        ("sokoban-tiny", ["prompt.notices=on"], False),  # compact
    ):
        assert build_prompts(load_config(recipe, change).prompt, False, True).shows_notices is shown, recipe
