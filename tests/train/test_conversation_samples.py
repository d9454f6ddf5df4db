"""Conversations as training samples: the same credit, loss and gradient as one sample a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from repro_rl.config import KlSection, load_config
from repro_rl.credit import assign_credit, reflection_advantages
from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.forward.padded import logits_of
from repro_rl.rollout import Actor, EnvPool, Judge, play
from repro_rl.rollout.context import ChatContext, WindowContext
from repro_rl.rollout.episode import completions_of
from repro_rl.rollout.samples import SampleFormat, TrainedPart, make_sample
from repro_rl.train.batch import Collation, PaddedInputs, merge, trained_tokens
from repro_rl.train.logits import padded_logits, target_logits, target_logprobs
from repro_rl.train.loss import LossSettings, policy_loss
from repro_rl.types import Completion, Group, Sample, TokenKind, Trajectory
from support.conversations import COMPACT, LIMITS, SOKOBAN, tiny_policy

COLLATION = Collation(pad_id=0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def pool() -> EnvPool:
    return EnvPool("sokoban", SOKOBAN)


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "the model's own pass"])
def policy(tmp_path_factory, request, pool) -> TransformersPolicy:
    return tiny_policy(tmp_path_factory.mktemp("chat") / "tiny", pool, packed=request.param)


def play_groups(pool: EnvPool, policy: TransformersPolicy) -> list[Group]:
    tasks = pool.first.panel("train").ids[:2]
    actor, judge = Actor(policy, COMPACT, SamplingSettings(3)), Judge(SamplingSettings(13))
    return play(ChatContext(pool, LIMITS), tasks, actor, judge, group_size=2)


def test_rows_and_batches_of_a_conversation_by_hand():
    parts = [
        TrainedPart(completion((10, 11), 1, 2, 0), 2.0, TokenKind.ACT),
        TrainedPart(completion((12,), 3, 0), -1.0, TokenKind.ACT),
        TrainedPart(completion((13, 14), 5, 6), 0.5, TokenKind.REFLECT),
    ]
    sample = make_sample(parts, 0)
    rows = merge([sample])
    assert (trained_tokens(rows, TokenKind.ACT), trained_tokens(rows, TokenKind.REFLECT)) == (5, 2)
    batch = COLLATION.collate(merge([sample, sample]), {TokenKind.ACT: 0.2, TokenKind.REFLECT: 0.05})
    # the trained tokens in order: answer 1, answer 2, reflection
    assert batch.targets.token.tolist() == [1, 2, 0, 3, 0, 5, 6]
    assert batch.targets.weight.tolist() == [2] * 7
    assert batch.targets.positive.tolist() == [4, 4, 4, 0, 0, 1, 1]
    assert batch.targets.negative.tolist() == [0, 0, 0, -2, -2, 0, 0]
    assert torch.allclose(batch.targets.scale, torch.tensor([0.2] * 5 + [0.05] * 2))
    assert isinstance(batch.inputs, PaddedInputs)
    assert batch.inputs.columns.tolist() == [1, 2, 3, 5, 6, 9, 10]


def test_on_a_gpu_only_trained_tokens_reach_the_output_layer(policy, monkeypatch):
    """Forced here: the branch depends on the device alone."""
    parts = [TrainedPart(completion((10, 11), 1, 2, 0), 2.0, TokenKind.ACT)]
    later = [TrainedPart(completion((10, 11, 12, 13), 5, 6), 1.0, TokenKind.ACT)]
    rows = merge([make_sample(parts, 0), make_sample(later, 0)])
    inputs = COLLATION.collate(rows, {TokenKind.ACT: 1.0}).inputs
    assert isinstance(inputs, PaddedInputs)
    expected = padded_logits(policy.model, inputs)
    on_gpu = type("Ids", (), {"device": torch.device("cuda")})()
    given = []
    monkeypatch.setattr(
        "repro_rl.train.logits.logits_of",
        lambda model, ids, *more: given.append(ids) or logits_of(model, inputs.ids, *more),
    )
    chosen = padded_logits(policy.model, replace(inputs, ids=on_gpu))
    assert given == [on_gpu]
    assert chosen.shape == expected.shape == (5, policy.codec.vocabulary_size)
    assert torch.allclose(chosen, expected, atol=1e-5)


def completion(turn: tuple[int, ...], *answer: int) -> Completion:
    return Completion(turn, answer, np.full(len(answer), -0.1, np.float32), "", True)


def test_log_probs_of_acting_are_those_of_the_training_pass(pool, policy):
    """Completions with a KV cache kept between turns, against one pass over the whole conversation."""
    groups = play_groups(pool, policy)
    how = SampleFormat(COMPACT.fmt, policy.codec.decode, "all")
    trajectories = [t for g in groups for t in g.trajectories]
    samples = ChatContext(pool, LIMITS).samples(groups, how)
    for trajectory, sample in zip(trajectories, samples, strict=True):
        completions = completions_of(trajectory)
        assert sample.trained.sum() == sum(len(c.token_ids) for c in completions)
        batch = COLLATION.collate(merge([sample]), {TokenKind.ACT: 1.0, TokenKind.REFLECT: 1.0})
        with torch.no_grad():
            logits, index = target_logits(policy.model, batch, 1.0)
        logprobs = target_logprobs(torch.log_softmax(logits, -1), batch, index)
        assert np.allclose(logprobs.numpy(), sample.logprob[sample.trained], atol=2e-6)


@pytest.mark.parametrize("method", ["grpo", "rloo", "gigpo", "hgpo", "repro", "oracle"])
@pytest.mark.parametrize("advantage_on", ["all", "split"])
def test_one_sample_a_conversation_changes_neither_credit_nor_loss(pool, policy, method, advantage_on):
    """The same episodes as one sample a step, each with its whole context as prompt, or a conversation each:
    the same tokens with the same advantages, and the same loss and gradient."""
    settings = load_config(None, [f"method={method}"]).method.model_copy(
        update={"advantage_on": advantage_on}  # a run of a method without estimates refuses "split"
    )
    groups = play_groups(pool, policy)
    for group in groups:
        first = group.trajectories[0]  # an untrained policy never wins
        first.steps[-1].env_reward, first.won = 10.0, True
        if not settings.reflect:
            for t in group.trajectories:
                t.reflection = None
    assign_credit(groups, settings)
    if settings.reflect:
        reflection_advantages(groups, None)
    for group in groups:
        for t in group.trajectories:
            for step in t.steps:
                step.progress_advantage = 0.5  # an untrained policy reports no progress
    how = SampleFormat(COMPACT.fmt, policy.codec.decode, advantage_on)
    conversations = ChatContext(pool, LIMITS).samples(groups, how)
    assert len(conversations) == 4
    stepwise = WindowContext(pool, LIMITS).samples([with_whole_prompts(g) for g in groups], how)
    values = trained_values(stepwise)
    assert values == trained_values(conversations)
    assert any(advantage for _, advantage, _ in values)
    scales = {TokenKind.ACT: 0.01, TokenKind.REFLECT: 0.003}
    objective = LossSettings(clip=0.2, kl=KlSection(form="none"), entropy_coef=0.01, temperature=1.0)
    results = []
    for samples in (conversations, stepwise):
        policy.model.zero_grad()
        terms = policy_loss(policy.model, COLLATION.collate(merge(samples), scales), objective)
        terms.total.backward()
        results.append((terms, [p.grad.clone() for p in policy.model.parameters()]))
    policy.model.zero_grad(set_to_none=True)
    (one, first_gradient), (two, second_gradient) = results
    assert (one.tokens, one.mismatch) == (two.tokens, pytest.approx(two.mismatch, abs=1e-3))
    assert float(one.total.detach()) == pytest.approx(float(two.total.detach()), rel=1e-4, abs=1e-6)
    for left, right in zip(first_gradient, second_gradient, strict=True):
        # The padding token is sampled too. Its embedding is 0 at first: a norm divides its gradient by 1e-3.
        assert torch.allclose(left, right, atol=1e-5 * max(1.0, float(left.abs().max())))


def trained_values(samples: list[Sample]) -> list[tuple[int, float, float]]:
    """(id, advantage, log-prob) of every trained token in order."""
    return [
        (int(s.ids[i]), float(s.advantage[i]), float(s.logprob[i]))
        for s in samples
        for i in np.flatnonzero(s.trained)
    ]


def with_whole_prompts(group: Group) -> Group:
    """The group's completions with everything before them as their prompts."""
    trajectories: list[Trajectory] = []
    for t in group.trajectories:
        before: tuple[int, ...] = ()
        whole = []
        for c in completions_of(t):
            whole.append(replace(c, prompt_ids=before + c.prompt_ids))
            before += c.prompt_ids + c.token_ids
        steps = [replace(s, completion=c) for s, c in zip(t.steps, whole, strict=False)]
        reflection = t.reflection and replace(t.reflection, completion=whole[-1])
        trajectories.append(replace(t, steps=steps, reflection=reflection))
    return Group(group.task_id, trajectories)
