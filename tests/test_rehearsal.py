"""Labelled reflections imitated beside RL: which are drawn, what they weigh, that the judge keeps them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from repro_rl.config import dump_config, load_config
from repro_rl.errors import PreflightError
from repro_rl.train.build import build_prompts, load_policy
from repro_rl.train.loop import RLRun
from repro_rl.train.loss import imitation_loss
from repro_rl.train.rehearsal import build_rehearsal, demos_of

SMALL_RUN = ["train.iterations=2", "train.groups=4", "train.group_size=2", "train.minibatches=2"]


def settings(warm, *more):
    return load_config(None, [*warm.settings, *SMALL_RUN, f"train.init={warm.model}", *more])


@pytest.fixture
def rehearsal(warm):
    config = settings(warm, "method.rehearsal=5", "method.rehearsal_coef=0.5")
    policy = load_policy(config, warm.model, training=True)
    built = build_rehearsal(config, policy, build_prompts(config), "")
    assert built is not None
    return built, policy


def targets(policy, batch):
    """The trained part of each row, as text."""
    return [
        policy.decode(tuple(ids[1:][weight > 0].tolist()))
        for ids, weight in zip(batch.ids, batch.weight, strict=True)
    ]


def test_a_method_rehearses_only_when_it_says_so(warm):
    config = settings(warm, "method.rehearsal=0")
    assert build_rehearsal(config, None, None, "") is None
    assert build_rehearsal(settings(warm, "method=gigpo", "method.rehearsal=5"), None, None, "") is None


def test_draws_are_a_function_of_iteration_and_step(rehearsal):
    built, _ = rehearsal
    first = torch.cat([batch.ids for batch in built.batches(3, 1)])
    assert torch.equal(first, torch.cat([batch.ids for batch in built.batches(3, 1)]))
    others = [built.batches(3, 2), built.batches(4, 1)]
    assert all(other[0].ids.shape != first.shape or not torch.equal(other[0].ids, first) for other in others)


def test_half_are_of_won_episodes_and_targets_are_their_labels(rehearsal):
    built, policy = rehearsal
    prompts = build_prompts(built._config)
    known = {prompts.render_reflection_target(t.reflection.values): t.won for t in (*built.won, *built.lost)}
    written = [text for batch in built.batches(1, 1) for text in targets(policy, batch)]
    assert len(written) == 5
    assert set(written) <= {*known}
    # An all-zero series can be of either; those that name the outcome must be two won and three lost.
    assert sum(text.endswith("p100") for text in written) == 2


def test_the_loss_is_the_mean_over_tokens_times_the_coefficient(rehearsal):
    built, policy = rehearsal
    batches = built.batches(1, 1)
    losses = sum(float(imitation_loss(policy.model, batch).detach()) for batch in batches)
    nats, tokens = 0.0, 0
    for batch in batches:
        logits = policy.model(input_ids=batch.ids).logits.float()
        logp = torch.log_softmax(logits, -1)[:, :-1].gather(-1, batch.ids[:, 1:, None]).squeeze(-1)
        mask = batch.weight[:, -logp.shape[1] :] > 0
        nats -= float(logp[mask].sum().detach())
        tokens += int(mask.sum())
    assert losses == pytest.approx(0.5 * nats / tokens, rel=1e-4)


def test_the_demonstrations_come_from_the_warm_start(warm, tmp_path):
    manifest = json.loads((warm.run / "manifest.json").read_text())
    assert manifest["demos"] == str(warm.demos)
    assert demos_of(settings(warm, "method.rehearsal=4")) == warm.demos
    assert demos_of(settings(warm, f"train.init={warm.run}")) == warm.demos
    (checkpoint,) = (warm.run / "checkpoints").glob("*[0-9]")
    assert demos_of(settings(warm, f"train.init={checkpoint}")) == warm.demos
    assert demos_of(settings(warm, f"train.demos={tmp_path}")) == tmp_path
    later, latest = (tmp_path / name / "model" for name in ("later", "latest"))
    for model, init in ((later, warm.model), (latest, later)):
        model.mkdir(parents=True)
        config = settings(warm, f"train.init={init}")
        (model.parent / "config.yaml").write_text(dump_config(config))
    assert demos_of(settings(warm, f"train.init={latest}")) == warm.demos
    (later.parent / "config.yaml").write_text(dump_config(settings(warm, f"train.init={latest}")))
    with pytest.raises(PreflightError, match=r"train\.demos=FOLDER"):  # each names the other
        demos_of(settings(warm, f"train.init={latest}"))
    config = load_config(None, [*warm.settings, f"train.init={tmp_path}/x/model", "method.rehearsal=4"])
    with pytest.raises(PreflightError, match=r"train\.demos=FOLDER"):
        demos_of(config)


def test_rehearsal_teaches_the_labels_while_rl_runs(warm, tmp_path):
    """With everything else switched off, the labels' loss falls; the same run repeated is the same."""
    more = ["method.reflect_coef=0", "method.beta=0", "method.rehearsal=32", "train.lr=0.003"]
    rows, weights = [], []
    for name in ("a", "b"):
        run = RLRun(settings(warm, *more, "train.lr_warmup=0"), tmp_path / name)
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


def test_a_judge_that_is_only_rehearsed_may_judge_at_another_temperature(warm, tmp_path):
    """At temperature 0 equal episodes are judged alike, and no reflection becomes a sample of the update."""
    greedy = ["method.reflect_coef=0", "method.judge_temperature=0", "method.rehearsal=4"]
    run = RLRun(settings(warm, *greedy), tmp_path / "greedy")
    groups = run.rollout(1)
    assert judged_alike(t for group in groups for t in group.trajectories)
    assert run._trained_reflections(groups, 1) == set()
    free = RLRun(settings(warm, "method.reflect_share=0.5", "method.judge_temperature=0"), tmp_path / "free")
    chosen = free._trained_reflections(groups, 1)
    assert len(chosen) == 4
    assert sorted(g for g, _ in chosen) == [0, 1, 2, 3]  # one of the two rollouts of every task
    played = [group.trajectories for group in free.rollout(1)]
    assert judged_alike(t for g, row in enumerate(played) for i, t in enumerate(row) if (g, i) not in chosen)
    as_acted = RLRun(settings(warm, "method.reflect_share=0.5"), tmp_path / "as-acted").rollout(1)
    for g, i in chosen:  # what is trained on is sampled as the policy acts
        assert (
            played[g][i].reflection.completion.text == as_acted[g].trajectories[i].reflection.completion.text
        )
    every = RLRun(settings(warm, "method.reflect_share=1"), tmp_path / "every")
    assert every._trained_reflections(groups, 1) is None
