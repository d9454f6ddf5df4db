"""Both context modes answer one interface: playing, samples, demonstrations, first prompt, limits."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from repro_rl.demos.annotators import AnnotationContext, annotate_all
from repro_rl.demos.collect import play as play_expert
from repro_rl.dist.ranks import without_ids
from repro_rl.errors import ConfigError, DataError, PreflightError, UnknownNameError
from repro_rl.policy import SamplingSettings
from repro_rl.rollout import Actor, Judge, PlayOptions, RolloutRequest, play
from repro_rl.rollout.context import CONTEXTS, ContextLimits, make_context
from repro_rl.rollout.context.base import replayed
from repro_rl.rollout.episode import completions_of
from repro_rl.rollout.samples import SampleFormat
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.types import Status, TokenKind
from support.episodes import COMPACT, sokoban_pool
from support.scripted import ScriptedTokens

LIMITS = ContextLimits(
    prompt=200, reflect_prompt=400, conversation=1000, action=3, reflection=40, cache=10**6
)
ACTING, REFLECTING = SamplingSettings(LIMITS.action), SamplingSettings(LIMITS.reflection)
WORDS = ("up", "down", "left", "right")
ACT_ONLY = PromptBuilder(TextFormat("compact", progress=False))


@pytest.fixture(params=sorted(CONTEXTS))
def context(request):
    return make_context(request.param, sokoban_pool(), LIMITS)


@pytest.fixture
def policy(context):
    env = context.pool.first
    return ScriptedTokens({*env.vocabulary(), *COMPACT.words(env.max_steps)}, answer)


def answer(prompt: str, key: int) -> str:
    """An action that depends on the random stream; after the episode a judgement of every step."""
    if not prompt.endswith("judge"):
        return f"p{key % 101} {WORDS[key % 4]}"
    steps = int(re.findall(r"\bt(\d+)\b", prompt)[-1])
    return " ".join(f"t{t} p{min(99, 10 * t)}" for t in range(1, steps + 1))


@pytest.fixture
def played(context, policy):
    """Two groups of two episodes with reflections."""
    tasks = context.pool.first.panel("train").ids[:2]
    judge = Judge(REFLECTING)
    return play(context, tasks, Actor(policy, COMPACT, ACTING), judge, group_size=2)


@pytest.fixture
def expert(context):
    env = context.pool.first
    rng = np.random.default_rng(0)
    trajectory = play_expert(env, env.panel("train").ids[0], 0.0, rng)
    annotate_all([trajectory], "oracle", AnnotationContext(env.instructions, rng))
    return trajectory


def test_a_demonstration_of_another_environment_is_said_to_be_one(context, expert):
    foreign = replace(expert, task_id="valid_unseen/pick_and_place_simple-Mug-None-Desk-1/trial_1")
    with pytest.raises(DataError, match=r"is of another environment, .* Sokoban has no task 'valid_unseen"):
        next(replayed(context.pool.first, foreign))


def test_a_mode_goes_by_its_name(context):
    assert CONTEXTS[context.name] is type(context)


def test_play_keeps_the_order_and_reflects(context, policy, played):
    episodes = [t for group in played for t in group.trajectories]
    assert [t.rollout for t in episodes] == [0, 1, 2, 3]
    for t in episodes:
        assert t.status in (Status.TERMINATED, Status.TRUNCATED)
        assert [s.t for s in t.steps] == list(range(1, t.length + 1))
        assert t.reflection is not None
        assert t.reflection.values == tuple(min(99, 10 * k) for k in range(1, t.length + 1))
        assert len(completions_of(t)) == t.length + 1
    assert len({tuple(s.action for s in t.steps) for t in episodes}) == 4


def test_the_same_episodes_in_any_batch_and_without_a_judge(context, policy, played):
    requests = [RolloutRequest(g.task_id, t.rollout) for g in played for t in g.trajectories]
    actor = Actor(policy, COMPACT, ACTING)
    expected = [[s.completion.token_ids for s in t.steps] for g in played for t in g.trajectories]
    for live in (1, 3):
        done = []
        options = PlayOptions("play", max_live=live, on_done=done.append)
        episodes = context.play(requests, actor, None, options)
        assert [[s.completion.token_ids for s in t.steps] for t in episodes] == expected
        assert all(t.reflection is None for t in episodes)
        assert sum(done) == len(requests)


def test_each_reflection_is_sampled_as_its_judge_says(context, policy):
    lengths = []

    class Recording(ScriptedTokens):
        def generate_ids(self, encoded, keys, settings, forms=None):
            lengths.append(settings.max_new_tokens)
            return super().generate_ids(encoded, keys, settings)

    words = set(policy.codec.tokenizer.get_vocab())
    recording = Recording(words - {"<pad>", "<eos>", "<unk>"}, answer)
    judge = Judge(lambda t: SamplingSettings(30 + t.rollout % 2, 0.0))
    tasks = context.pool.first.panel("train").ids[:1]
    play(context, tasks, Actor(recording, COMPACT, ACTING), judge, group_size=3)
    assert sorted(lengths[-2:]) == [30, 31]
    assert set(lengths[:-2]) == {LIMITS.action}


def test_samples_hold_what_was_sampled(context, policy, played):
    for index, group in enumerate(played):
        for t in group.trajectories:
            for step in t.steps:
                step.advantage = 1.0 + index
            t.reflection.advantage = -1.0
    played[0].trajectories[0].reflection.trained = False
    samples = context.samples(played, SampleFormat(COMPACT.fmt, policy.codec.decode, "all"))
    assert {s.group for s in samples} == {0, 1}
    for s in samples:
        assert len(s.ids) == len(s.kind) == len(s.advantage) == len(s.logprob)
        assert (s.ids.dtype, s.kind.dtype) == (np.int64, np.int8)
        assert (s.advantage.dtype, s.logprob.dtype) == (np.float32, np.float32)
        assert not s.trained[0]
        assert not s.advantage[~s.trained].any()
        assert not s.logprob[~s.trained].any()
        assert (s.advantage[s.kind == TokenKind.ACT] == 1.0 + s.group).all()
        assert (s.advantage[s.kind == TokenKind.REFLECT] == -1.0).all()
        assert (s.logprob[s.trained] == -0.5).all()
    trajectories = [t for g in played for t in g.trajectories]
    acting = [i for t in trajectories for s in t.steps for i in s.completion.token_ids]
    judging = [i for t in trajectories[1:] for i in t.reflection.completion.token_ids]
    if context.name == "chat":
        assert len(samples) == len(trajectories)
    else:
        assert len(samples) == sum(t.length + 1 for t in trajectories) - 1
    for kind, ids in ((TokenKind.ACT, acting), (TokenKind.REFLECT, judging)):
        assert [i for s in samples for i in s.ids[s.kind == kind].tolist()] == ids


@pytest.mark.parametrize("prompts", [COMPACT, ACT_ONLY], ids=["progress", "action"])
def test_action_demos_train_the_answers(context, policy, expert, prompts):
    text = policy.codec
    samples = context.action_demos(expert, prompts, text)
    trained = [i for s in samples for i in s.ids[s.kind == TokenKind.ACT].tolist()]
    assert trained == [
        i for s in expert.steps for i in text.encode_target(prompts.action_target(s.online, s.action))
    ]
    assert len(samples) == (1 if context.name == "chat" else expert.length)
    for s in samples:
        assert set(s.kind.tolist()) == {TokenKind.CONTEXT, TokenKind.ACT}
        assert not s.trained[0]
        assert text.tokenizer.unk_token_id not in s.ids


def test_demonstrations_stand_in_the_first_prompt_and_in_others_by_mode(context, policy, expert):
    shown = "left left"
    samples = context.action_demos(expert, COMPACT, policy.codec, [shown, ""])
    texts = [policy.codec.decode(tuple(s.ids.tolist())) for s in samples]
    assert all(text.startswith(shown) for text in texts)
    bare = context.action_demos(expert, COMPACT, policy.codec)
    added = sum(len(s.ids) for s in samples) - sum(len(s.ids) for s in bare)
    assert added == 2 * (1 if context.shows_once() else expert.length)
    assert context.shows_once() is (context.name == "chat")


def test_reflection_demos_train_the_labels_alone(context, policy, expert):
    text = policy.codec
    sample = context.reflection_demo(expert, COMPACT, text, 7, 0)
    target = text.encode_target(COMPACT.reflection_target(expert.reflection.values))
    assert sample.ids[-len(target) :].tolist() == list(target)
    context_length = len(sample.ids) - len(target)
    assert sample.kind.tolist() == [TokenKind.CONTEXT] * context_length + [TokenKind.REFLECT] * len(target)
    assert sample.ids.tolist() == context.reflection_demo(expert, COMPACT, text, 7, 0).ids.tolist()
    prompts = context.reflection_prompts(ACT_ONLY, COMPACT, ["action", "progress"])
    assert prompts == ([ACT_ONLY, COMPACT] if context.name == "chat" else [COMPACT])
    assert context.reflection_prompts(ACT_ONLY, COMPACT, []) == [COMPACT]
    expert.reflection.values = None
    with pytest.raises(DataError, match="0 labels for"):
        context.reflection_demo(expert, COMPACT, text)


def test_demonstrations_over_their_limits_are_errors(context, policy, expert):
    def limited(**limits):
        return make_context(context.name, context.pool, replace(LIMITS, **limits))

    with pytest.raises(PreflightError, match=r"prompt.action_tokens is 2, but a demonstration needs 3"):
        limited(action=2).action_demos(expert, COMPACT, policy.codec)
    with pytest.raises(PreflightError, match=r"raise prompt.max_prompt_tokens"):
        limited(prompt=4).action_demos(expert, COMPACT, policy.codec)
    with pytest.raises(PreflightError, match=r"prompt.reflect_new_tokens is 5, but a demonstration needs"):
        limited(reflection=5).reflection_demo(expert, COMPACT, policy.codec)
    # chat: all turns fit but the last, which would leave too few tokens for the reflection
    too_few = LIMITS.reflection + sum(len(s.ids) for s in context.action_demos(expert, COMPACT, policy.codec))
    with pytest.raises(PreflightError, match=r"raise prompt.max_(reflect|chat)_tokens"):
        limited(reflect_prompt=4, conversation=too_few).reflection_demo(expert, COMPACT, policy.codec)


def test_the_first_prompt_is_the_one_that_is_played(context, policy, played):
    for group in played:
        first = context.first_prompt(COMPACT, policy.codec, group.task_id)
        assert {t.steps[0].prompt for t in group.trajectories} == {first}
    short = make_context(context.name, context.pool, replace(LIMITS, prompt=4))
    with pytest.raises(PreflightError, match=r"first (prompt|turn) of .* has \d+ tokens"):
        short.first_prompt(COMPACT, policy.codec, played[0].task_id)


def test_metrics_of_the_mode(context, played):
    episodes = [t for g in played for t in g.trajectories]
    lengths = [sum(c.prompt_tokens + c.tokens for c in completions_of(t)) for t in episodes]
    expected = {}
    if context.name == "chat":
        mean = pytest.approx(sum(lengths) / 4)
        expected = {"rollout/context_full": 0.0, "rollout/conversation_tokens": mean}
    assert context.metrics(episodes) == expected
    others = [without_ids(t, prompts=False) for t in episodes[1:]]  # as they come from other ranks
    assert context.metrics([episodes[0], *others]) == expected
    assert set(context.metrics([])) == set(expected)


def test_the_longest_sequence_bounds_every_sample(context, policy, played):
    samples = context.samples(played, SampleFormat(COMPACT.fmt, policy.codec.decode, "all"))
    assert max(len(s.ids) for s in samples) <= context.longest_sequence()
    assert context.longest_sequence() == (1000 if context.name == "chat" else 440)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (None, (200, 400, 1000)),  # not known: nothing is bounded
        (5000, (200, 400, 1000)),
        (420, (200, 380, 420)),  # prompts leave positions for their answers
        (100, (97, 60, 100)),
        (20, (17, 1, 20)),  # at least one token
    ],
)
def test_limits_within_a_model(positions, expected):
    prompt, reflect_prompt, conversation = expected
    bounded = replace(LIMITS, prompt=prompt, reflect_prompt=reflect_prompt, conversation=conversation)
    assert LIMITS.within(positions) == bounded


def test_unknown_modes_and_plays_of_nothing_are_named(context, policy):
    with pytest.raises(UnknownNameError, match=r"Unknown context mode 'chatt'.*chat"):
        make_context("chatt", context.pool, context.limits)
    with pytest.raises(ConfigError, match="group_size is 0"):
        play(context, ["a"], Actor(policy, COMPACT, ACTING), group_size=0)


@pytest.mark.parametrize("context", ["chat"], indirect=True)
def test_a_conversation_has_no_judge_of_its_own(context, policy):
    judge = Judge(REFLECTING, policy)
    with pytest.raises(ConfigError, match="with context=chat a Judge takes no policy of its own"):
        context.play([], Actor(policy, COMPACT, ACTING), judge, PlayOptions("x"))
