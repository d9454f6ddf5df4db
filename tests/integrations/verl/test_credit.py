"""The advantages of a verl batch: those of our own loop for the same episodes, weighted for verl."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from repro_rl.credit import assign_credit, reflection_advantages
from repro_rl.integrations.verl.credit import BatchCredit
from repro_rl.integrations.verl.session import session_samples, without_prompt_ids
from repro_rl.policy import TransformersPolicy
from repro_rl.rollout.samples import SampleFormat
from repro_rl.run.setup import Setup
from repro_rl.types import Group, TokenKind
from support.verl_sessions import GROUPS, ITERATION, SIZE, config_of, play_sessions, setup_of, uid

METHODS = {
    "repro": [],
    "repro-share": ["method.reflect_share=0.5", "method.reflect_coef=0.3"],
    "repro-split": ["method.advantage_on=split"],
    "repro-judge": ["method.reflect_coef=0"],
    "grpo": [],
    "rloo": [],
    "gigpo": [],
    "hgpo": [],
    "meta": [],
    "l2": ["method.advantage_on=action"],
}


@pytest.fixture(scope="module")
def policy(warm) -> TransformersPolicy:
    return TransformersPolicy.load(warm.model, config_of(warm).policy)


@pytest.fixture(scope="module")
def played(warm, policy):
    """Sessions by whether progress and a reflection are asked for: several methods share them."""
    pickles = {}

    def of(setup: Setup):
        key = (setup.config.method.progress, setup.config.method.reflect)
        if key not in pickles:
            pickles[key] = pickle.dumps(play_sessions(setup, warm, policy))
        return pickle.loads(pickles[key])

    return of


def sample_format(setup: Setup, policy: TransformersPolicy) -> SampleFormat:
    return SampleFormat(setup.prompts.fmt, policy.codec.decode, setup.config.method.advantage_on)


def batch_credit(setup: Setup, policy: TransformersPolicy) -> BatchCredit:
    return BatchCredit(
        setup.config.method,
        setup.reflection_choice(),
        setup.config.train.group_size,
        setup.context(policy.codec),
        sample_format(setup, policy),
    )


def stripped(sessions):
    return {key: without_prompt_ids(trajectory) for key, trajectory in sessions.items()}


@pytest.mark.parametrize("name", METHODS)
def test_credit_and_samples_are_those_of_our_own_loop(warm, policy, played, name):
    setup = setup_of(warm, f"method.name={name.split('-')[0]}", *METHODS[name])
    sessions, method = played(setup), setup.config.method
    sent = pickle.loads(pickle.dumps(stripped(sessions)))
    credited = batch_credit(setup, policy).credit(sent, ITERATION)

    groups = [
        Group(sessions[uid(g), 0].task_id, [sessions[uid(g), k] for k in range(SIZE)]) for g in range(GROUPS)
    ]
    assign_credit(groups, method)
    chosen = [setup.reflection_choice().chosen(ITERATION, g, SIZE) for g in range(GROUPS)]
    if method.reflect:
        reflection_advantages(groups, chosen)
    expected = setup.context(policy.codec).samples(groups, sample_format(setup, policy))
    # What verl's rows hold: the samples of every session in turn.
    rows = [
        (kind, completion, credited.advantages[uid(g), k, index])
        for g in range(GROUPS)
        for k in range(SIZE)
        for index, (kind, completion) in enumerate(session_samples(sessions[uid(g), k], k in chosen[g]))
    ]
    assert len(rows) == len(expected) == len(credited.advantages)
    tokens = Counter(kind for kind, completion, _ in rows for _ in completion.token_ids)
    total = sum(tokens.values())
    weight = {TokenKind.ACT: total / tokens[TokenKind.ACT]}
    if tokens[TokenKind.REFLECT]:
        weight[TokenKind.REFLECT] = method.reflect_coef * total / tokens[TokenKind.REFLECT]
    for (kind, completion, values), sample in zip(rows, expected, strict=True):
        assert set(sample.kind[sample.trained].tolist()) == {kind}
        assert (*completion.prompt_ids, *completion.token_ids) == tuple(sample.ids.tolist())
        np.testing.assert_allclose(values, sample.advantage[sample.trained] * weight[kind], rtol=1e-5)
    assert any(np.abs(values).max() > 0 for _, _, values in rows)
    trained = max(1, round(SIZE * method.reflect_share)) if method.reflect and method.reflect_coef else 0
    assert credited.metrics["samples/reflect"] == GROUPS * trained
    assert credited.metrics["samples/forward"] == sum(t.length for t in sessions.values())
    assert "rollout/entropy" not in credited.metrics


def test_the_mean_over_all_tokens_is_the_weighted_sum_of_the_means_of_each_kind(warm, policy, played):
    """verl's token mean of what is linear in the advantage, against that of our own update."""
    setup = setup_of(warm, "method.reflect_coef=0.3", "method.reflect_share=0.5")
    credited = batch_credit(setup, policy).credit(stripped(played(setup)), ITERATION)
    samples = setup.context(policy.codec).samples(credited.groups, sample_format(setup, policy))
    acting, judged = (
        np.concatenate([s.advantage[s.trained] for s in samples if (s.kind == kind).any()]).mean()
        for kind in (TokenKind.ACT, TokenKind.REFLECT)
    )
    flat = np.concatenate(list(credited.advantages.values()))
    assert flat.mean() == pytest.approx(acting + 0.3 * judged, abs=1e-5)


def test_a_session_that_did_not_come_back_is_no_part_of_its_group(warm, policy, played):
    setup = setup_of(warm, "method.name=grpo")
    sessions = stripped(played(setup))
    first = uid(0)
    del sessions[first, 1]
    rest = [sessions[first, k] for k in (0, 2, 3)]
    for trajectory, value in zip(rest, (6.0, 0.0, 0.0), strict=True):
        for step in trajectory.steps:
            step.env_reward, step.valid, step.defects = 0.0, True, ()
        trajectory.steps[-1].env_reward = value
    credited = batch_credit(setup, policy).credit(sessions, ITERATION)
    assert credited.advantages[first, 0, 0].tolist() == [4.0] * len(rest[0].steps[0].completion.token_ids)
    assert credited.advantages[first, 3, 0][0] == -2.0
    assert (first, 1, 0) not in credited.advantages
