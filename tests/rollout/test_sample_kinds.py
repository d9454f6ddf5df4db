"""Samples by hand: ids as sampled, one kind a token, and where the step advantage falls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from repro_rl.rollout.context import ChatContext, ContextLimits, WindowContext
from repro_rl.rollout.samples import (
    SampleFormat,
    TrainedPart,
    first_token_beyond,
    make_sample,
    target_sample,
    trained_parts,
)
from repro_rl.text import TextFormat
from repro_rl.types import Completion, Group, Reflection, TokenKind, Trajectory, no_completion
from support.episodes import hand_episode, hand_step, sokoban_pool

PROGRESS = TextFormat("compact", progress=True)
ACTION = TextFormat("compact", progress=False)
TOKENS = {1: "p40", 2: "up", 3: "p50", 0: ""}
LIMITS = ContextLimits(100, 100, 100, 10, 10, 1000)


def decode(ids):
    return " ".join(TOKENS[i] for i in ids if TOKENS[i])


def sampled(turn, answer, text, *logprobs):
    return Completion(turn, answer, np.array(logprobs, np.float32), text, True)


def example() -> Trajectory:
    """Two steps and a reflection, credited."""
    first = sampled((10, 11), (1, 2, 0), "p40 up", -0.1, -0.2, -0.3)
    second = sampled((12,), (3, 0), "p50 up", -0.4, -0.5)
    judged = sampled((13, 14), (5, 6), "t1 p40 t2 p100", -0.6, -0.7)
    steps = [
        hand_step(1, first, advantage=2.0, progress_advantage=0.25),
        hand_step(2, second, advantage=-1.0, progress_advantage=0.75),
    ]
    reflection = Reflection("r", judged, (40, 100), (), advantage=0.5)
    return hand_episode(steps, won=True, reflection=reflection)


def conversation(trajectory: Trajectory, how: SampleFormat) -> list:
    return ChatContext(sokoban_pool(), LIMITS).samples([Group("t", [trajectory])], how)


def test_a_conversation_as_one_sample():
    (sample,) = conversation(example(), SampleFormat(PROGRESS, decode, "all"))
    #                            turn 1   answer 1   turn 2  answer 2  question  reflection
    assert sample.ids.tolist() == [10, 11, 1, 2, 0, 12, 3, 0, 13, 14, 5, 6]
    assert sample.kind.tolist() == [0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 2, 2]
    assert sample.trained.astype(int).tolist() == [0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1]
    assert sample.advantage.tolist() == [0, 0, 2, 2, 2, 0, -1, -1, 0, 0, 0.5, 0.5]
    assert np.allclose(sample.logprob, [0, 0, -0.1, -0.2, -0.3, 0, -0.4, -0.5, 0, 0, -0.6, -0.7])
    assert sample.group == 0
    assert [a.dtype for a in (sample.ids, sample.kind, sample.advantage, sample.logprob)] == [
        *(np.int64, np.int8, np.float32, np.float32),
    ]


def test_steps_as_samples_of_their_own():
    samples = WindowContext(sokoban_pool(), LIMITS).samples(
        [Group("a", []), Group("t", [example()])], SampleFormat(PROGRESS, decode, "all")
    )
    assert [s.ids.tolist() for s in samples] == [[10, 11, 1, 2, 0], [12, 3, 0], [13, 14, 5, 6]]
    assert [s.kind.tolist() for s in samples] == [[0, 0, 1, 1, 1], [0, 1, 1], [0, 0, 2, 2]]
    assert [s.advantage.tolist() for s in samples] == [[0, 0, 2, 2, 2], [0, -1, -1], [0, 0, 0.5, 0.5]]
    assert [s.group for s in samples] == [1, 1, 1]


def test_a_reflection_that_is_not_trained_is_not_in_the_sample():
    trajectory = example()
    trajectory.reflection.trained = False
    (sample,) = conversation(trajectory, SampleFormat(PROGRESS, decode, "all"))
    assert sample.ids.tolist() == [10, 11, 1, 2, 0, 12, 3, 0]


def test_the_action_part_alone_can_carry_the_advantage():
    (sample,) = conversation(example(), SampleFormat(PROGRESS, decode, "split"))
    # "p50" alone is progress; step 2's ids hold no action token, only the end token
    assert sample.advantage.tolist() == [0, 0, 0.25, 2, 2, 0, 0.75, 0.75, 0, 0, 0.5, 0.5]
    (sample,) = conversation(example(), SampleFormat(PROGRESS, decode, "action"))
    assert sample.advantage.tolist() == [0, 0, 0.25, 2, 2, 0, 0.75, 0.75, 0, 0, 0.5, 0.5]
    (sample,) = conversation(example(), SampleFormat(ACTION, decode, "split"))  # no progress to set apart
    assert sample.advantage.tolist() == [0, 0, 2, 2, 2, 0, -1, -1, 0, 0, 0.5, 0.5]


def test_what_was_not_sampled_gives_no_sample():
    trajectory = example()
    for step in trajectory.steps:
        step.completion = no_completion()
    assert len(trained_parts(trajectory, SampleFormat(PROGRESS, decode, "all"))) == 3
    trajectory.reflection.completion = no_completion()
    for context in (WindowContext, ChatContext):
        samples = context(sokoban_pool(), LIMITS).samples(
            [Group("t", [trajectory])], SampleFormat(PROGRESS, decode, "all")
        )
        assert samples == []


PARTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), max_size=4),
        st.lists(st.integers(0, 9), max_size=4),
        st.sampled_from([TokenKind.ACT, TokenKind.REFLECT]),
        st.floats(-2, 2, width=32),
    ),
    min_size=1,
    max_size=5,
)


@given(PARTS)
def test_every_token_has_one_kind(parts):
    """Prompts are context, every answer has the kind of its part; nothing is lost, moved or added."""
    sample = make_sample(
        [
            TrainedPart(
                Completion(tuple(turn), tuple(answer), np.full(len(answer), -0.5, np.float32), "", True),
                advantage,
                kind,
            )
            for turn, answer, kind, advantage in parts
        ],
        3,
    )
    tokens = [
        (token, kind, value, logprob)
        for turn, answer, answer_kind, advantage in parts
        for ids, kind, value, logprob in (
            (turn, TokenKind.CONTEXT, 0.0, 0.0),
            (answer, answer_kind, advantage, -0.5),
        )
        for token in ids
    ]
    columns = (sample.ids, sample.kind, sample.advantage, sample.logprob)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == tokens
    assert sample.trained.tolist() == [kind is not TokenKind.CONTEXT for _, kind, _, _ in tokens]
    assert sample.group == 3


def test_a_sample_to_imitate_by_hand():
    sample = target_sample([((1, 2), TokenKind.CONTEXT), ((3,), TokenKind.ACT), ((), TokenKind.CONTEXT)])
    assert sample.ids.tolist() == [1, 2, 3]
    assert sample.kind.tolist() == [0, 0, 1]
    assert sample.trained.tolist() == [False, False, True]
    assert not sample.advantage.any()
    assert not sample.logprob.any()


@pytest.mark.parametrize(("offset", "index"), [(0, 0), (2, 0), (3, 1), (5, 1), (6, 4), (99, 4)])
def test_the_first_token_beyond_a_character(offset, index):
    assert first_token_beyond((1, 2, 0, 0), offset, decode) == index  # "p40 up"
