"""Labelled reflections imitated beside RL: which are drawn, what they weigh, that the judge keeps them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro_rl.config import load_config
from repro_rl.demos import load_demos
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.files.names import DEMOS_FILE
from repro_rl.run.models import load_policy
from repro_rl.run.setup import set_up
from repro_rl.train import Collation, RLRun
from repro_rl.train.loss import imitation_loss
from repro_rl.train.rehearsal import Rehearsal
from repro_rl.train.sft import WarmupRun
from repro_rl.types import Reflection, no_completion

SMALL_RUN = ["train.iterations=2", "train.groups=4", "train.group_size=2", "train.minibatches=2"]


def settings(warm, *more):
    return load_config(None, [*warm.settings, *SMALL_RUN, f"train.init={warm.model}", *more])


def collation_of(policy):
    return Collation(policy.codec.pad_id, policy.device)


@pytest.fixture
def rehearsal(warm):
    """Five reflections a step at half the weight, and the policy that would imitate them."""
    config = settings(warm)
    setup = set_up(config)
    policy = load_policy(config.policy, warm.model, training=True)
    episodes = [t for part in load_demos(warm.demos) for t in part]
    context = setup.context(policy.codec)
    rehearsal = Rehearsal(
        episodes, context, setup.prompts, policy.codec, count=5, coef=0.5, micro_tokens=4096, seed=config.seed
    )
    return rehearsal, policy


def targets(policy, batch):
    """The trained part of each row, as text."""
    rows = range(len(batch.inputs.ids))
    return [policy.codec.decode(tuple(batch.targets.token[batch.inputs.row == r].tolist())) for r in rows]


def test_a_method_rehearses_only_when_it_says_so(warm, tmp_path):
    for number, (more, rehearses) in enumerate(
        (
            (["method.rehearsal=0"], False),
            (["method=gigpo", "method.rehearsal=5"], False),
            (["method.rehearsal=5"], True),
        )
    ):
        run = RLRun(set_up(settings(warm, *more)), tmp_path / str(number))
        assert (run.updater.rehearse is not None) is rehearses


def test_demonstrations_without_labels_cannot_be_rehearsed(rehearsal):
    built, _ = rehearsal
    for episode in built.episodes:
        episode.reflection = Reflection("", no_completion(), None, ("no_answer",))
    with pytest.raises(PreflightError, match="needs labelled episodes"):
        replace(built)


def test_demonstrations_of_other_settings_are_neither_warmed_up_on_nor_rehearsed(warm, tmp_path):
    demos = shutil.copytree(warm.demos, tmp_path / "demos")
    config = settings(warm, "method.rehearsal=5", f"train.demos={demos}")
    made = config.env.model_dump(mode="json")
    made["settings"]["style"] = "grid"
    (demos / DEMOS_FILE).write_text(json.dumps({"settings": {"env": made}}))
    for number, start in enumerate(
        (
            lambda out: RLRun(set_up(config), out),
            lambda out: WarmupRun(set_up(config), demos, out),
        )
    ):
        with pytest.raises(ConfigError, match=r"env\.settings\.style: 'grid' there, 'relative' now"):
            start(tmp_path / str(number))


def test_an_episode_that_does_not_fit_is_refused_before_any_update(warm, rehearsal):
    built, policy = rehearsal
    tight = set_up(settings(warm)).context(policy.codec)
    tight.limits = replace(tight.limits, reflect_prompt=4)
    with pytest.raises(PreflightError, match="more than 4 tokens"):
        replace(built, context=tight)


def test_draws_are_a_function_of_iteration_and_step(rehearsal):
    built, policy = rehearsal

    def ids(iteration, step):
        (batch,) = built.batches(iteration, step, collation_of(policy))
        return batch.inputs.ids

    first = ids(3, 1)
    assert torch.equal(first, ids(3, 1))
    for other in (ids(3, 2), ids(4, 1)):
        assert other.shape != first.shape or not torch.equal(other, first)


def test_half_are_of_won_episodes_and_targets_are_their_labels(rehearsal):
    built, policy = rehearsal
    labels = {built.prompts.reflection_target(t.reflection.values) for t in (*built.won, *built.lost)}
    batches = built.batches(1, 1, collation_of(policy))
    written = [text for batch in batches for text in targets(policy, batch)]
    assert len(written) == 5
    assert set(written) <= labels
    # An all-zero series can be of either; of five, two or three are won, as chance decides.
    won = [
        sum(
            text.endswith("p100")
            for batch in built.batches(1, step, collation_of(policy))
            for text in targets(policy, batch)
        )
        for step in range(1, 9)
    ]
    assert set(won) == {2, 3}


def test_the_loss_is_the_mean_over_tokens_times_the_coefficient(rehearsal):
    built, policy = rehearsal
    batches = built.batches(1, 1, collation_of(policy))
    losses = sum(float(imitation_loss(policy.model, batch).detach()) for batch in batches)
    nats, tokens = 0.0, 0
    for batch in batches:
        ids, inputs = batch.inputs.ids, batch.inputs
        logits = policy.model(input_ids=ids).logits.float()
        logp = torch.log_softmax(logits, -1)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
        column = inputs.columns[inputs.column]
        assert torch.equal(ids[inputs.row, column + 1], batch.targets.token)
        nats -= float(logp[inputs.row, column].sum().detach())
        tokens += len(batch.targets.token)
    assert losses == pytest.approx(0.5 * nats / tokens, rel=1e-4)


def test_rehearsal_teaches_the_labels_while_rl_runs(warm, tmp_path):
    """With everything else switched off, the labels' loss falls; the same run repeated is the same."""
    more = ["method.reflect_coef=0", "method.beta=0", "method.rehearsal=32", "train.lr=0.003"]
    rows, weights = [], []
    for name in ("a", "b"):
        run = RLRun(set_up(settings(warm, *more, "train.lr_warmup=0")), tmp_path / name)
        rows.append([run.step() for _ in range(6)])
        weights.append(run.policy.model.state_dict())
    losses = [row["update/rehearsal_loss"] for row in rows[0]]
    assert np.mean(losses[-2:]) < 0.9 * np.mean(losses[:2])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def judged_alike(trajectories):
    """Whether equal episodes got equal judgements."""
    judged = {}
    for trajectory in trajectories:
        texts = judged.setdefault(trajectory.reflection.prompt, set())
        texts.add(trajectory.reflection.completion.text)
    return all(len(texts) == 1 for texts in judged.values())


def started(warm, folder, *more):
    return RLRun(set_up(settings(warm, *more)), folder)


def trained_reflections(run, groups):
    """(group, number) of the reflections that the update is to train on."""
    run.credit(groups, 1)
    return {
        (g, i)
        for g, group in enumerate(groups)
        for i, t in enumerate(group.trajectories)
        if t.reflection.trained
    }


def test_a_judge_that_is_only_rehearsed_may_judge_at_another_temperature(warm, tmp_path):
    """At temperature 0 equal episodes are judged alike, and no reflection becomes a sample of the update."""
    greedy = ["method.reflect_coef=0", "method.judge_temperature=0", "method.rehearsal=4"]
    run = started(warm, tmp_path / "greedy", *greedy)
    groups = run.rollout(1)
    assert judged_alike(t for group in groups for t in group.trajectories)
    assert trained_reflections(run, groups) == set()
    half = ["method.reflect_share=0.5"]
    apart = started(warm, tmp_path / "apart", *half, "method.judge_temperature=0")
    groups = apart.rollout(1)
    chosen = trained_reflections(apart, groups)
    assert sorted(g for g, _ in chosen) == [0, 1, 2, 3]  # one of the two rollouts of every task
    played = [group.trajectories for group in groups]
    assert judged_alike(t for g, row in enumerate(played) for i, t in enumerate(row) if (g, i) not in chosen)
    as_acted = started(warm, tmp_path / "as-acted", *half).rollout(1)
    for g, i in chosen:  # what is trained on is sampled as the policy acts
        assert (
            played[g][i].reflection.completion.text == as_acted[g].trajectories[i].reflection.completion.text
        )
    every = started(warm, tmp_path / "every", "method.reflect_share=1")
    assert len(trained_reflections(every, groups)) == 8
