"""A session of verl's agent loop, without verl: the same episode as in the loop of our own."""

from __future__ import annotations

import numpy as np
import pytest

from repro_rl.errors import ConfigError
from repro_rl.integrations.verl.session import (
    Answer,
    ServerPolicy,
    Task,
    play_session,
    request_params,
    session_samples,
)
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.loading.codec import load_codec
from repro_rl.rollout import Actor, PlayOptions
from repro_rl.run.validation import panel_requests
from support.verl_cases import ServerSeeds
from support.verl_sessions import config_of, own_groups, play_sessions, server, setup_of, uid


@pytest.fixture(scope="module")
def policy(warm) -> TransformersPolicy:
    return TransformersPolicy.load(warm.model, config_of(warm).policy)


def test_a_session_is_the_episode_that_our_own_loop_plays(warm, policy):
    setup = setup_of(warm)
    sessions = play_sessions(setup, warm, policy)
    for index, group in enumerate(own_groups(setup, policy)):
        for number, expected in enumerate(group.trajectories):
            session = sessions[uid(index), number]
            assert (session.task_id, session.rollout, session.won) == (
                expected.task_id,
                expected.rollout,
                expected.won,
            )
            assert [s.completion.token_ids for s in session.steps] == [
                s.completion.token_ids for s in expected.steps
            ]
            assert [(s.action, s.online, s.defects) for s in session.steps] == [
                (s.action, s.online, s.defects) for s in expected.steps
            ]
            assert [s.completion.finished for s in session.steps] == [
                s.completion.finished for s in expected.steps
            ]
            assert session.reflection.values == expected.reflection.values
            assert session.reflection.completion.token_ids == expected.reflection.completion.token_ids
            for mine, theirs in zip(session.steps, expected.steps, strict=True):
                np.testing.assert_allclose(mine.completion.logprobs, theirs.completion.logprobs, atol=1e-5)


def test_a_server_that_gives_nothing_ends_the_episode(warm):
    setup = setup_of(warm)
    silent = ServerPolicy(load_codec(warm.model), lambda ids, settings, seed: Answer((), []))
    trajectory = play_session(setup, silent, Task("train", setup.panel("train").ids[0], 1, 0, 0))
    assert trajectory.failed
    assert "no tokens" in trajectory.error
    assert session_samples(trajectory, True) == []


@pytest.mark.parametrize(
    ("logprobs", "words"),
    [([-0.5, -0.5], "3 tokens and 2 log-probs"), ([-0.5, float("nan"), -0.1], "not finite")],
)
def test_an_answer_without_its_log_probs_is_no_sample(warm, logprobs, words):
    setup = setup_of(warm)
    odd = ServerPolicy(load_codec(warm.model), lambda ids, settings, seed: Answer((1, 2, 3), logprobs))
    trajectory = play_session(setup, odd, Task("train", setup.panel("train").ids[0], 1, 0, 0))
    assert words in trajectory.error
    assert session_samples(trajectory, True) == []
    silent = ServerPolicy(load_codec(warm.model), lambda ids, settings, seed: Answer((1, 2, 3), None))
    with pytest.raises(ConfigError, match="calculate_log_probs at true"):
        play_session(setup, silent, Task("train", setup.panel("train").ids[0], 1, 0, 0))


def test_validation_sessions_are_those_of_our_own_validation(warm, policy):
    setup = setup_of(warm)
    section, panel = setup.config.eval, setup.validation_panel()
    actor = Actor(ServerSeeds(policy), setup.prompts, setup.action_sampling(section.validation_temperature))
    options = PlayOptions(("panel", section.seed))
    own = setup.context(policy.codec).play(panel_requests(panel.ids, 1), actor, None, options)
    for position, (task, expected) in enumerate(zip(panel, own, strict=True)):
        session = play_session(setup, server(policy, warm.model), Task("validation", task, 0, position, 0))
        assert [s.action for s in session.steps] == [s.action for s in expected.steps]
        assert session.reflection is None


@pytest.mark.parametrize(
    ("server", "params"),
    [
        ("vllm", {"seed": 5, "stop_token_ids": [1, 9]}),
        ("sglang", {"sampling_seed": 5, "stop_token_ids": [1, 9]}),
        ("trtllm", {"seed": 5, "stop_token_ids": [1, 9]}),
        ("hf", {}),
    ],
)
def test_a_request_carries_seed_and_stop_tokens_in_the_servers_words(server, params):
    """SGLang's SamplingParams has no ``seed`` and fails at a name that it does not know."""
    assert request_params(server, 5, {9, 1}) == params


def test_an_answer_ends_where_ours_would_whatever_the_server_does(warm):
    """A server that ignores the limit and the stop tokens, as verl's of TensorRT-LLM does."""
    codec = load_codec(warm.model)
    end, word = codec.end_id, codec.plain_ids("up")[0]
    answers = {1: (word, end, word), 2: (word,) * 5, 3: (word, word, word, end), 4: (word, end)}

    def ask(ids, settings, seed):
        return Answer(answers[seed], [-0.1 * (n + 1) for n in range(len(answers[seed]))])

    policy, settings = ServerPolicy(codec, ask), SamplingSettings(3, 1.0)
    done = policy.generate_ids([(word,)] * 4, np.arange(1, 5, dtype=np.uint64), settings)
    assert [c.token_ids for c in done] == [(word, end), (word,) * 3, (word,) * 3, (word, end)]
    assert [c.finished for c in done] == [True, False, False, True]
    np.testing.assert_allclose(done[0].logprobs, [-0.1, -0.2], rtol=1e-6)
    np.testing.assert_allclose(done[1].logprobs, [-0.1, -0.2, -0.3], rtol=1e-6)
