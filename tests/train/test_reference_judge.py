"""The frozen warm start as judge (method.judge=reference): who writes the reflections, and who learns."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from repro_rl.config import PolicySection, load_config
from repro_rl.errors import ConfigError
from repro_rl.integrations.verl.recipe import checked
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import Policy
from repro_rl.policy.decoding.static.pool import KEPT_SHARE, StaticDecoders
from repro_rl.policy.transformers_policy import AdapterOffPolicy
from repro_rl.rollout import Actor
from repro_rl.rollout.record import read_trajectories
from repro_rl.rollout.reflection import reflect
from repro_rl.run.model_paths import find_model
from repro_rl.run.setup import set_up
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.train import RLRun, run_training
from repro_rl.types import Group

CPU = PolicySection(device="cpu")
SETTINGS = [
    *("method=repro-fixed-judge", "method.judge_temperature=0", "train.lr=0.05", "train.lr_warmup=0"),
    *("train.groups=4", "train.group_size=2", "train.minibatches=2", "train.validate_every=0"),
]


def settings(warm, *more: str):
    return load_config(None, [*warm.settings, *SETTINGS, f"train.init={warm.model}", *more])


def texts_of(run: RLRun, groups: list[Group], judge: Policy) -> list[str]:
    """What ``judge`` writes, greedily, about copies of these episodes."""
    episodes = [copy.deepcopy(t) for g in groups for t in g.trajectories]
    setup = run.setup
    instructions = setup.pool.first.instructions
    actor = Actor(judge, setup.prompts, setup.reflection_sampling(0.0))
    reflect(episodes, actor, instructions=instructions, stream="again", max_prompt_tokens=4096)
    return [t.reflection.completion.text for t in episodes if t.reflection is not None]


def texts(groups: list[Group]) -> list[str]:
    return [t.reflection.completion.text for g in groups for t in g.trajectories if t.reflection is not None]


@pytest.mark.parametrize("kl", ["train.kl.form=exact", "train.kl.form=none"])
def test_the_warm_start_judges_whatever_becomes_of_the_policy(warm, tmp_path, kl):
    run = RLRun(set_up(settings(warm, kl)), tmp_path / "run")
    assert (run.updater.trained.reference is None) == (kl == "train.kl.form=none")
    run.step()
    run.step()
    groups = run.rollout(3)
    assert len(texts(groups)) == 8
    assert texts(groups) == texts_of(run, groups, TransformersPolicy.load(warm.model, CPU))
    assert texts(groups) != texts_of(run, groups, run.policy)


def test_it_continues_bit_for_bit(warm, tmp_path):
    whole = run_training(settings(warm, "train.iterations=2"), tmp_path / "whole")
    run_training(settings(warm, "train.iterations=1"), tmp_path / "parts")
    parts = run_training(settings(warm, "train.iterations=2"), tmp_path / "parts")
    left, right = whole.policy.model.state_dict(), parts.policy.model.state_dict()
    assert all(left[name].equal(right[name]) for name in left)


def test_it_is_not_asked_where_a_rollout_won(warm, tmp_path, monkeypatch):
    """The reflections that are left out would not have been read: the weights are the same, bit for bit."""
    how = ("method=repro-act-graph-fixed-judge", "train.groups=6", "train.group_size=4", "train.iterations=2")
    config = settings(warm, *how)
    run = RLRun(set_up(config), tmp_path / "groups")
    groups = run.rollout(1)
    reflected = [{t.reflection is not None for t in g.trajectories} for g in groups]
    assert reflected == [{not any(t.won for t in g.trajectories)} for g in groups]
    assert {True, False} == set.union(*reflected)
    run.sampler.close()
    sparing = run_training(config, tmp_path / "sparing")
    monkeypatch.setattr("repro_rl.config.method.MethodSection.judges_lost_only", False)
    asking = run_training(config, tmp_path / "asking")
    left, right = sparing.policy.model.state_dict(), asking.policy.model.state_dict()
    assert all(left[name].equal(right[name]) for name in left)


def test_an_evaluation_asks_the_same_judge(warm, tmp_path):
    """Its retrospective progress is that of the judge who trained the policy, and it says so."""
    run_training(settings(warm, "train.iterations=2"), tmp_path / "run")
    model = find_model(tmp_path / "run")

    def written(judge: str, folder: Path) -> bool:
        """Whether the model in ``folder`` would have written every reflection of the evaluation."""
        more = ["eval.tasks=4", "eval.temperature=0", f"method.judge={judge}"]
        config = load_config(tmp_path / "run" / "config.yaml", more)
        assert evaluate(config, model, EvalRequest(judge, out=tmp_path / "out"))["judge"] == judge
        path = tmp_path / "out" / "trajectories" / f"eval-{judge}.jsonl.gz"
        reflections = [record["reflection"] for record in read_trajectories(path)]
        keys = np.zeros(len(reflections), dtype=np.uint64)
        policy = TransformersPolicy.load(folder, CPU)
        again = policy.generate(
            [r["prompt"] for r in reflections], keys, set_up(config).reflection_sampling(0.0)
        )
        return len(reflections) == 4 and [c.text for c in again] == [r["text"] for r in reflections]

    assert written("reference", warm.model)
    assert not written("reference", model)
    assert written("policy", model)


def test_without_its_adapter_a_model_writes_what_the_warm_start_writes(warm, tmp_path):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    run = RLRun(set_up(settings(warm, "policy.lora={rank: 4}")), tmp_path / "run")
    assert isinstance(run.judge_policy, AdapterOffPolicy)
    run.step()
    groups = run.rollout(2)
    assert texts(groups) == texts_of(run, groups, TransformersPolicy.load(warm.model, CPU))
    assert texts(groups) != texts_of(run, groups, run.policy)


def test_a_frozen_judge_is_taught_nothing(warm, tmp_path):
    """Reflections and rehearsal, which the settings weigh, train nobody."""
    run = RLRun(set_up(settings(warm, "method.reflect_coef=1", "method.rehearsal=4")), tmp_path / "run")
    assert run.updater.rehearse is None
    row = run.step()
    assert row["reflect/valid"] > 0
    assert "update/rehearsal_loss" not in row


def test_before_an_update_the_judge_keeps_no_memory_of_a_gpu(warm, tmp_path, monkeypatch):
    """What decodes for the policy may keep a share of the card."""
    freed = []
    monkeypatch.setattr(
        StaticDecoders, "free_for_update", lambda self, share=KEPT_SHARE: freed.append((self, share))
    )
    run = RLRun(set_up(settings(warm)), tmp_path / "run")
    run.step()
    assert [share for _, share in freed] == [KEPT_SHARE, 0]
    assert freed[0][0] is run.policy.decoders
    assert freed[1][0] is run.judge_policy.decoders


def test_a_conversation_has_no_second_judge(warm):
    with pytest.raises(ConfigError, match=r"judge=reference needs prompt\.context=window"):
        settings(warm, "prompt.context=chat")


def test_a_method_that_never_reflects_names_no_judge():
    with pytest.raises(
        ConfigError, match=r"method\.judge has no effect here, only with method\.reflect true"
    ):
        load_config(None, ["method=gigpo", "method.judge=reference"])


def test_verl_has_no_frozen_judge():
    config = load_config(
        None, ["method=repro-fixed-judge", "method.rehearsal=0", "train.kl.form=k3", "train.env_steps=null"]
    )
    with pytest.raises(ConfigError, match=r"method\.judge=reference is not available in verl"):
        checked(config)
