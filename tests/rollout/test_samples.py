"""From trajectories to samples: which advantage falls on which token."""

from __future__ import annotations

import numpy as np
import pytest

from repro_rl.credit import CreditSettings, assign_credit
from repro_rl.rollout import EnvPool
from repro_rl.rollout.context import ContextLimits, WindowContext
from repro_rl.rollout.samples import SampleFormat, split_advantage
from repro_rl.text.parse import TextFormat
from repro_rl.types import Completion, Group, Reflection, Status, Step, TokenKind, Trajectory

WORDS = ["<eos>", "p10", "p40", "left", "push", "up", "t1"]


def decode(ids):
    return " ".join(WORDS[i] for i in ids if i)


def completion_of(*words, prompt=(1, 2)):
    ids = tuple(WORDS.index(word) for word in words)
    logprobs = np.arange(len(ids), dtype=np.float32) * -0.1
    return Completion(prompt, ids, logprobs, decode(ids), ids[-1:] == (0,))


COMPACT = TextFormat("compact", progress=True, think="off")


LIMITS = ContextLimits(prompt=64, reflect_prompt=64, conversation=256, action=8, reflection=8, cache=256)
LATE = TextFormat("compact", progress=True, think="off", report="after")


@pytest.mark.parametrize(
    ("fmt", "words", "on_action"),
    [
        (COMPACT, ("p40", "push", "up", "<eos>"), "0111"),
        (COMPACT, ("push", "up", "<eos>"), "111"),  # no progress: all of it is the action
        (COMPACT, ("p40", "p10", "left", "<eos>"), "0011"),
        (COMPACT, ("p40", "<eos>"), "11"),  # no action: the whole answer is why
        (COMPACT, ("<eos>",), "1"),
        (COMPACT, ("p40", "left", "p10"), "011"),
        (LATE, ("push", "up", "p40", "<eos>"), "1100"),
        (LATE, ("push", "up", "<eos>"), "111"),
        (LATE, ("left", "p10", "p40", "<eos>"), "1000"),
        (LATE, ("p40", "<eos>"), "11"),
        (LATE, ("p40", "left", "p10"), "110"),
    ],
)
def test_tokens_of_the_action(fmt, words, on_action):
    split = split_advantage(completion_of(*words), 0.0, 1.0, SampleFormat(fmt, decode, "split"))
    assert split == [float(letter) for letter in on_action]


@pytest.mark.parametrize("report", ["before", "after"])
def test_tokens_of_the_action_with_characters_as_tokens(report):
    action, progress = "<action>up</action>", "<progress>40</progress>"
    text = progress + action if report == "before" else action + progress
    fmt = TextFormat("full", progress=True, think="off", report=report)
    completion = Completion((), tuple(map(ord, text)), np.zeros(len(text), np.float32), text, True)
    how = SampleFormat(fmt, lambda ids: "".join(map(chr, ids)), "split")
    split = split_advantage(completion, 0.0, 1.0, how)
    assert "".join(letter for letter, value in zip(text, split, strict=True) if value) == action


def step_of(completion, online=40, truth=None, defects=()):
    return Step(1, "o", "b", "a", "p", completion, "x", online, defects, True, 0.0, truth)


def episode_of(*steps, reflection=None):
    return Trajectory("a", 0, "", list(steps), False, 0.0, Status.TERMINATED, reflection=reflection)


PROGRESS_PAID = CreditSettings(
    alignment="oracle", alpha=1.0, format_coef=0.1, boundary_coef=0.1, advantage_on="split"
)


def test_advantages_fall_on_the_right_tokens():
    steps = [
        step_of(completion_of("p40", "push", "up", "<eos>"), online=100, truth=0.7),  # -.3 and a boundary
        step_of(completion_of("left", "<eos>"), truth=0.9, defects=("no_progress",)),  # -.5 and a defect
        step_of(Completion((1,), (), np.zeros(0, np.float32), "", True), truth=0.4),
    ]
    reflection = Reflection("", completion_of("t1", "p10", "<eos>", prompt=(3,)), (10,), (), advantage=0.75)
    one, two = episode_of(*steps[:2], reflection=reflection), episode_of(steps[2])
    assign_credit([Group("a", [one, two])], PROGRESS_PAID)
    # -.4, -.6 and 0 minus their mean -1/3
    apart = [step.progress_advantage for step in steps]
    assert apart == pytest.approx([-0.4 + 1 / 3, -0.6 + 1 / 3, 1 / 3])
    for step, advantage in zip(steps, (2.0, -1.0, 5.0), strict=True):
        step.advantage = advantage
    pool = EnvPool("sokoban")

    def samples(on):
        how = SampleFormat(COMPACT, decode, on)
        return WindowContext(pool, LIMITS).samples([Group("a", []), Group("a", [one, two])], how)

    def advantages(on):
        act, reflect = TokenKind.ACT, TokenKind.REFLECT
        kinds = [set(s.kind.tolist()) - {TokenKind.CONTEXT} for s in samples(on)]
        assert kinds == [{act}, {act}, {reflect}]  # nothing of the empty completion
        return [s.advantage.tolist() for s in samples(on)]

    judged = [0, 0.75, 0.75, 0.75]
    assert advantages("all") == [[0, 0, 2, 2, 2, 2], [0, 0, -1, -1], judged]
    assert advantages("split") == [
        pytest.approx([0, 0, -0.4 + 1 / 3, 2, 2, 2]),
        [0, 0, -1, -1],
        judged,
    ]
    for step in steps:  # "action" sets none
        step.progress_advantage = 0.0
    assert advantages("action") == [[0, 0, 0, 2, 2, 2], [0, 0, -1, -1], judged]
    reflection.trained = False
    act, _ = samples("all")
    assert act.ids.tolist() == [1, 2, 2, 4, 5, 0]
    assert act.kind.tolist() == [0, 0, *[TokenKind.ACT] * 4]
    assert act.trained.tolist() == [False, False, True, True, True, True]
    assert act.logprob.tolist() == pytest.approx([0, 0, 0, -0.1, -0.2, -0.3])
    assert (act.group, act.ids.dtype, act.kind.dtype, act.advantage.dtype) == (
        1,
        np.int64,
        np.int8,
        np.float32,
    )


def test_split_leaves_failed_environments_out():
    steps = [step_of(completion_of("p40", "left", "<eos>"), truth=truth) for truth in (0.6, 0.8, 0.9)]
    episodes = [episode_of(step) for step in steps]
    episodes[2].fail("gone")
    assign_credit([Group("a", episodes)], PROGRESS_PAID)
    assert [step.progress_advantage for step in steps] == pytest.approx([0.1, -0.1, 0.0])
