"""Prompts over their limit: what goes first, where it is cut, and what is logged about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from repro_rl import make
from repro_rl.demos.collect import play
from repro_rl.policy.base import SamplingSettings
from repro_rl.rollout import Actor, EnvPool, PlayOptions, RolloutRequest, reflect, run_episodes
from repro_rl.rollout.counts import group_metrics, rollout_metrics
from repro_rl.rollout.fit import MARK, MIN_OBSERVATION, fitting_prompt, shorten
from repro_rl.rollout.reflection import fitting_reflection, reflection_prompt
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.text.prompts import StepInputs
from repro_rl.types import Group
from support.scripted import LetterText, ScriptedPolicy

FULL = PromptBuilder(TextFormat("full", progress=False, think="off"), history=2)
COMPACT = PromptBuilder(TextFormat("compact", progress=False), history=0)


def test_shorten_by_hand():
    text = " [SEP] ".join(f"item {i:02d} costs {i} dollars" for i in range(20))
    short = shorten(text, 150)
    assert short == (
        "item 00 costs 0 dollars [SEP] item 01 costs 1 dollars [SEP] item 02 costs 2 dollars "
        "[... left out ...] 18 dollars [SEP] item 19 costs 19 dollars"  # no item begins near enough
    )
    lines = "\n".join(f"row {i}" for i in range(30))
    assert shorten(lines, 62).split("\n") == [*(f"row {i}" for i in range(4)), MARK, *("row 28", "row 29")]
    assert shorten("x" * 100, 0) == "x" * 26 + f" {MARK} " + "x" * 14  # one word: cut inside it
    assert shorten("short", 60) == "short"


@given(st.text(alphabet="ab ,.\n", max_size=400), st.integers(0, 300))
def test_shorten_keeps_to_the_limit_and_to_both_ends(text, limit):
    short = shorten(text, limit)
    assert len(short) <= max(limit, MIN_OBSERVATION)
    if short != text:
        head, mark, tail = short.partition(MARK)
        assert mark
        assert text.startswith(head.rstrip())
        assert text.endswith(tail.lstrip())
    assert shorten(short, limit) == short


OBSERVATION = " [SEP] ".join(f"thing {i}" for i in range(40))
BARE = StepInputs("rules", "g", OBSERVATION, ["left", "right"], step=3, max_steps=9)
INPUTS = replace(BARE, history=[("first room", "left"), ("second room", "right")])


def test_what_a_steps_prompt_gives_up_in_which_order():
    def fit(limit: int) -> Any:
        return fitting_prompt(LetterText(), FULL, limit, [""], INPUTS)

    whole = len(FULL.act(INPUTS))
    bare = len(FULL.act(BARE))
    assert fit(whole).shortened == ""
    less = fit(whole - 1)
    assert less.shortened == "history"
    assert "second room" in less.text
    assert "first room" not in less.text
    assert fit(bare).shortened == "history"
    cut = fit(bare - 1)
    assert cut.shortened == "observation"
    assert "second room" not in cut.text
    assert "thing 0" in cut.text
    assert "thing 39" in cut.text
    assert MARK in cut.text
    assert "- left\n- right" in cut.text
    for limit in range(bare - 300, bare, 7):
        prompt = fit(limit)
        if prompt is not None:
            assert len(prompt.text) <= limit
            assert prompt == fit(limit)  # the same again
    assert fit(bare - len(OBSERVATION)) is None  # MIN_OBSERVATION characters are always kept


def test_compact_prompts_are_never_cut():
    bare = len(COMPACT.act(BARE))
    assert fitting_prompt(LetterText(), COMPACT, bare, [""], BARE) is not None
    assert fitting_prompt(LetterText(), COMPACT, bare - 1, [""], BARE) is None


@pytest.fixture(scope="module")
def episode() -> Any:
    env = make("alfworld", max_steps=8)
    return play(env, env.panel("train").ids[0], 1.0, np.random.default_rng(0)), env.instructions


def test_a_reflection_is_shortened_evenly_then_given_up(episode):
    trajectory, instructions = episode
    text_of = LetterText()
    whole = len(reflection_prompt(trajectory, FULL, instructions))
    assert fitting_reflection(trajectory, text_of, FULL, instructions, whole) == (
        reflection_prompt(trajectory, FULL, instructions),
        False,
    )
    found = fitting_reflection(trajectory, text_of, FULL, instructions, whole - 50)
    assert found is not None
    text, shortened = found
    assert shortened
    assert len(text) <= whole - 50
    assert MARK in text
    # Evenly: only the longest observation, the first, is cut for so little; no action is ever lost.
    assert text.count(MARK) == 1
    assert all(f"Action: {step.action or 'none'}" in text for step in trajectory.steps)
    least = len(reflection_prompt(trajectory, FULL, instructions, characters=MIN_OBSERVATION))
    assert fitting_reflection(trajectory, text_of, FULL, instructions, least) is not None
    assert fitting_reflection(trajectory, text_of, FULL, instructions, least - 1) is None


def test_short_forms_come_before_cutting():
    """WebShop's style for tiny models has a short form of every observation."""
    env = make("webshop", style="words", max_steps=4)
    trajectory = play(env, env.panel("train").ids[0], 1.0, np.random.default_rng(1))
    brief = reflection_prompt(trajectory, FULL, env.instructions, briefly=True)
    whole = reflection_prompt(trajectory, FULL, env.instructions)
    assert len(brief) < len(whole)
    found = fitting_reflection(trajectory, LetterText(), FULL, env.instructions, len(whole) - 1)
    assert found == (brief, True)


def test_what_was_lost_is_logged():
    pool = EnvPool("alfworld", {"max_steps": 3})
    task = pool.first.panel("train").ids[0]
    policy = ScriptedPolicy("<action>look</action>", LetterText())
    sampling = SamplingSettings(8)

    def played(limit: int) -> Any:
        actor = Actor(policy, FULL, sampling)
        (trajectory,) = run_episodes(pool, [RolloutRequest(task, 0)], actor, PlayOptions(0), limit)
        return trajectory

    whole = played(100_000)
    assert rollout_metrics([whole])["rollout/shortened_prompts"] == 0
    sizes = [len(prompt) for (prompt,) in policy.calls]
    cut = played(sizes[0] - 20)
    assert [step.shortened for step in cut.steps] == ["observation", "history", "history"]
    metrics = rollout_metrics([cut])
    assert metrics["rollout/shortened_prompts"] == 1
    assert metrics["rollout/truncated_observations"] == pytest.approx(1 / 3)
    longest = len(reflection_prompt(whole, FULL, pool.first.instructions))
    judge = ScriptedPolicy("<progress>\nstep 1: 10\nstep 2: 20\nstep 3: 30\n</progress>", LetterText())
    for limit, share in ((longest, 0.0), (longest - 40, 1.0)):
        instructions = pool.first.instructions
        actor = Actor(judge, FULL, sampling)
        reflect([whole], actor, instructions=instructions, stream=0, max_prompt_tokens=limit)
        assert whole.reflection is not None
        assert whole.reflection.values == (10, 20, 30)
        for step in whole.steps:
            step.terms = {}
        assert group_metrics([Group(task, [whole])])["reflect/shortened_prompts"] == share
