"""What travels between ranks."""

from __future__ import annotations

from repro_rl.config import load_config
from repro_rl.dist.ranks import without_ids
from repro_rl.rollout import trajectory_record
from repro_rl.rollout.counts import group_metrics, rollout_metrics
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun


def test_what_travels_has_the_counts_but_not_the_ids(warm, tmp_path):
    config = load_config(None, [*warm.settings, "train.groups=2", f"train.init={warm.run}"])
    run = RLRun(set_up(config), tmp_path / "run")
    groups = run.rollout(1)
    run.credit(groups, 1)
    stripped = [[without_ids(t, prompts=True) for t in group.trajectories] for group in groups]
    for group, copies in zip(groups, stripped, strict=True):
        for whole, copy in zip(group.trajectories, copies, strict=True):
            assert trajectory_record(copy, 1) == trajectory_record(whole, 1)
            assert all(step.completion.token_ids == () for step in copy.steps)
            assert all(step.completion.token_ids for step in whole.steps)
            assert all(step.prompt == "" for step in without_ids(whole, prompts=False).steps)
    whole = [t for group in groups for t in group.trajectories]
    copies = [t for group in stripped for t in group]
    assert rollout_metrics(copies) == rollout_metrics(whole)
    for group, played in zip(groups, stripped, strict=True):
        before = group_metrics([group])
        group.trajectories = played
        assert group_metrics([group]) == before
