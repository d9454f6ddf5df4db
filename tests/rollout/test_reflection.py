"""Reflection: the prompt with the outcome, what is read, defects, and how reflections are sampled."""

from __future__ import annotations

import numpy as np

from repro_rl.policy import SamplingSettings
from repro_rl.rollout import Actor, Judge, reflect
from repro_rl.rollout.reflection import read_reflection
from repro_rl.types import Completion, Status
from support.episodes import (
    COMPACT,
    SAMPLING,
    hand_episode,
    hand_step,
    values_text,
    won_and_lost,
)
from support.scripted import ScriptedPolicy


def test_reflect_parses_and_shows_the_outcome(pool):
    won, lost = won_and_lost(pool)
    policy = ScriptedPolicy(lambda prompt, key: values_text(prompt.count(" t")))
    reflect(
        [won, lost], Actor(policy, COMPACT, SAMPLING), instructions="", stream="s", max_prompt_tokens=4096
    )
    for trajectory in (won, lost):
        count = len(trajectory.steps)
        assert trajectory.reflection.values == (10,) * (count - 1) + (90,)
        assert trajectory.reflection.defects == ()
    assert won.reflection.prompt.startswith(f"reflect won {won.steps[0].observation} ")
    assert lost.reflection.prompt.startswith("reflect lost ")
    assert lost.reflection.prompt.endswith("judge")
    assert lost.reflection.prompt.count(" none ") == 8
    words = won.reflection.prompt.split()
    assert [w for w in words if w in ("up", "down", "left", "right")] == [s.action for s in won.steps]
    assert len(policy.calls) == 1


def test_reflect_on_rubbish_cut_off_and_too_long(pool):
    won, lost = won_and_lost(pool)
    empty = hand_episode([], status=Status.FAILED, error="lost")
    reflect(
        [won, lost, empty],
        Actor(ScriptedPolicy("what?"), COMPACT, SAMPLING),
        instructions="",
        stream=0,
        max_prompt_tokens=4096,
    )
    assert won.reflection.values is None
    assert set(won.reflection.defects) == {"text_outside", "no_values"}
    assert empty.reflection is None
    cut = ScriptedPolicy(lambda prompt, key: values_text(prompt.count(" t")) + "…")
    reflect([won], Actor(cut, COMPACT, SAMPLING), instructions="", stream=0, max_prompt_tokens=4096)
    assert won.reflection.values is None
    assert won.reflection.defects == ("cut_off",)
    policy = ScriptedPolicy(lambda prompt, key: values_text(prompt.count(" t")))
    limit = len(policy.codec.encode(won.reflection.prompt))
    assert limit < len(policy.codec.encode(lost.reflection.prompt))
    reflect([won, lost], Actor(policy, COMPACT, SAMPLING), instructions="", stream=0, max_prompt_tokens=limit)
    assert won.reflection.values is not None
    assert lost.reflection.values is None
    assert lost.reflection.defects == ("prompt_too_long",)
    assert lost.reflection.completion.token_ids == ()
    assert [len(call) for call in policy.calls] == [1]
    reflect([lost], Actor(policy, COMPACT, SAMPLING), instructions="", stream=0, max_prompt_tokens=3)
    assert len(policy.calls) == 1  # nothing to ask


def test_no_answer_is_a_defect():
    completion = Completion((), (), np.zeros(0, np.float32), "", False, error="server gone")
    trajectory = hand_episode([hand_step(1)])
    reflection = read_reflection(trajectory, "prompt", completion, COMPACT.fmt, False)
    assert (reflection.values, reflection.defects) == (None, ("no_answer",))


def test_reflections_sampled_alike_are_sampled_together():
    greedy, hot = SamplingSettings(9, 0.0), SamplingSettings(9, 1.0)
    episodes = [hand_episode([hand_step(1)], rollout=k) for k in range(4)]
    judge = Judge(lambda trajectory: hot if trajectory.rollout == 2 else greedy)
    assert judge.by_sampling(episodes) == {greedy: [0, 1, 3], hot: [2]}
    assert Judge(hot).by_sampling(episodes) == {hot: [0, 1, 2, 3]}
