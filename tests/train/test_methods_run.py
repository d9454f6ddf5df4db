"""Every method of the literature, loss and switch of training, for an iteration on a tiny recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from repro_rl.config import load_config
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun
from repro_rl.train.dynamic import is_mixed
from repro_rl.train.schedule import check_one_process

SETTINGS = [
    *(
        "train.groups=4",
        "train.group_size=3",
        "train.minibatches=2",
        "train.validate_every=0",
        "train.epochs=2",
    ),
    *("method.rehearsal=0", "train.lr=0.01", "train.lr_warmup=0", "train.record_every=0"),
]
RULES = (
    *("dr-grpo", "reinforce-pp", "reinforce-pp-baseline", "maxrl", "graphgpo", "g2po", "gagpo", "pace"),
    *("proxmo", "mt-grpo", "hcapo", "gigpo-observation"),
)
SOURCES = ("graph-shaping", "value-shaping", "progress-advantage", "l2-raw")
JUDGED = ("graphgpo-judged", "g2po-judged", "gagpo-judged", "g2po-judged-where-lost", "repro-act-value")
FROZEN = ("repro-act-value-fixed-judge", "g2po-judged-where-lost-fixed-judge")
LOSSES = (
    ("train.loss.name=ppo_clip", "train.loss.clip_high=0.28", "train.loss.dual_clip=3"),
    ("train.loss.name=cispo",),
    ("train.loss.name=gspo", "train.loss.aggregation=seq-mean-token-mean"),
    ("train.loss.name=sapo", "train.loss.aggregation=seq-mean-token-sum"),
    ("train.loss={name: dppo_tv, aggregation: seq-mean-token-sum-norm, scale: 3}",),
    ("train.loss.name=dppo_kl", "train.loss.aggregation=token-mean"),
)


def one_step(warm, folder, *more: str) -> tuple[RLRun, dict[str, float]]:
    config = load_config(None, [*warm.settings, *SETTINGS, f"train.init={warm.model}", *more])
    run = RLRun(set_up(config), folder / "run")
    before = [p.detach().clone() for p in run.policy.model.parameters()]
    row = run.step()
    after = list(run.policy.model.parameters())
    assert any(not np.array_equal(a.detach(), b) for a, b in zip(after, before, strict=True))
    assert row["update/skipped"] == 0
    assert all(math.isfinite(value) for value in row.values())
    return run, row


@pytest.mark.parametrize("method", [*RULES, *SOURCES, *JUDGED, *FROZEN])
def test_a_method_trains(warm, tmp_path, method: str) -> None:
    one_step(warm, tmp_path, f"method={method}")


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss[0].partition("=")[2][:14])
def test_a_loss_trains(warm, tmp_path, loss: Sequence[str]) -> None:
    one_step(warm, tmp_path, "method=gigpo", *loss)


@pytest.mark.parametrize("method", ["self-distill", "self-distill-signed"])
def test_the_policy_learns_from_itself_with_the_reflection(warm, tmp_path, method: str) -> None:
    _, row = one_step(warm, tmp_path, f"method={method}", "method.distill.coef=0.1")
    assert 0 <= row["rollout/unscored_teacher"] < 1
    assert row["update/distill_share"] > 0
    assert math.isfinite(row["rollout/teacher_gain"])
    assert row["update/distill_loss"] != 0


def test_the_end_of_the_episode_changes_how_likely_its_actions_were(warm, tmp_path) -> None:
    run, row = one_step(warm, tmp_path, "method=hcapo")
    assert row["rollout/unscored_hindsight"] == 0
    groups = run.rollout(2)
    run.credit(groups, 2)
    completions = [s.completion for g in groups for t in g.trajectories for s in t.steps]
    assert all(len(c.scored["hindsight"]) == len(c.token_ids) for c in completions)
    assert any(abs(c.scored["hindsight"] - c.logprobs).max() > 1e-3 for c in completions)
    metrics = run.scorer.score(groups, run.setup.config.method)
    gains = [sum(c.scored["hindsight"]) - sum(c.logprobs) for c in completions if c.token_ids]
    assert metrics["rollout/hindsight_gain"] == pytest.approx(sum(gains) / len(gains), abs=1e-5)


def test_a_scored_answer_without_more_in_its_prompt_is_what_was_sampled(warm, tmp_path) -> None:
    """The reference before the first update is the policy: the same log-probs, so no progress at all."""
    run, row = one_step(warm, tmp_path, "method=progress-advantage", "train.temperature=0.7")
    assert row["reward/shaping"] == pytest.approx(0.0, abs=1e-4)
    groups = run.rollout(2)
    run.credit(groups, 2)
    shaping = [s.terms["shaping"] for g in groups for t in g.trajectories for s in t.steps]
    assert max(map(abs, shaping)) > 1e-3, "after an update the policy is not its reference"


def test_dynamic_sampling_trains_on_groups_that_differ(warm, tmp_path) -> None:
    settings = ("method=grpo", "train.group_size=8", "train.temperature=1.5")
    plain = load_config(None, [*warm.settings, *SETTINGS, f"train.init={warm.model}", *settings])
    first = [is_mixed(group) for group in RLRun(set_up(plain), tmp_path / "plain").rollout(1)]
    assert not all(first), "then there is nothing to replace"
    run, row = one_step(warm, tmp_path, "train.dynamic_sampling=3", *settings)
    played = row["rollout/groups_played"]
    assert 4 < played <= 16
    assert row["rollout/groups_mixed"] > sum(first)
    assert row["rollout/groups_mixed"] == 4 or not any(map(is_mixed, run.dropped))
    assert row["rollout/groups_mixed"] > 4 * (1 - row["rollout/equal_groups"]) - 1e-9
    assert len(run.dropped) == played - 4
    assert row["env_steps"] >= 32 * played / 4, "what was dropped was played too"


def test_the_overlong_penalty_is_a_term_of_its_own(warm, tmp_path) -> None:
    overlong = "method.overlong={factor: 0.5, max_length: 2, buffer: 1}"
    _, row = one_step(warm, tmp_path, "method=gigpo", overlong)
    assert row["reward/overlong"] < 0


def test_what_one_process_alone_can_do_is_refused_for_more() -> None:
    for settings in (["method=hcapo"], ["method=self-distill"], ["train.dynamic_sampling=1"]):
        config = load_config(None, settings)
        which = config.train.dynamic_sampling, config.method.scores
        check_one_process(*which, 1)
        with pytest.raises(PreflightError, match=r"one training process; 2 were started\. Start one, or"):
            check_one_process(*which, 2)


@pytest.mark.parametrize("method", ["hcapo", "self-distill", "progress-advantage"])
def test_a_conversation_has_no_second_scoring(method: str) -> None:
    with pytest.raises(ConfigError, match=r"needs prompt\.context=window"):
        load_config(None, [f"method={method}", "prompt.context=chat"])
