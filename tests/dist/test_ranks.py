"""What travels between ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro_rl.config import load_config
from repro_rl.dist import collectives
from repro_rl.dist.failures import RankMonitor
from repro_rl.dist.ranks import JoinSettings, Ranks, _connect, without_ids
from repro_rl.errors import ConfigError, RankLostError
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


def two_ranks(rank: int = 0) -> Ranks:
    return Ranks(rank, 2, RankMonitor(rank, 1.0))


@pytest.mark.parametrize("limit", [1, 1 << 20])
def test_a_gradient_is_summed_once_whatever_the_buckets(limit, monkeypatch):
    """The other rank has the same gradients, so each doubles; a missing one adds zero."""
    calls = []

    def all_reduce(flat):
        calls.append(flat.tolist())
        flat.mul_(2)

    monkeypatch.setattr(collectives, "BUCKET_BYTES", limit)
    monkeypatch.setattr(collectives.dist, "all_reduce", all_reduce)
    one, two, missing, frozen = (torch.nn.Parameter(torch.ones(2)) for _ in range(4))
    small = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    one.grad, two.grad = torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5])
    small.grad = torch.tensor([3.0], dtype=torch.bfloat16)
    frozen.requires_grad_(False)
    two_ranks().sum_gradients([one, two, missing, frozen, small])
    assert one.grad.tolist() == [2, -2]
    assert two.grad.tolist() == [4, 1]
    assert missing.grad.tolist() == [0, 0]
    assert frozen.grad is None
    assert (small.grad.tolist(), small.grad.dtype) == ([6], torch.bfloat16)
    apart = [[1, -1], [2, 0.5], [0, 0], [3]]  # each in a bucket of its own
    assert calls == (apart if limit == 1 else [[1, -1, 2, 0.5, 0, 0], [3]])  # else one for each dtype


def test_weights_that_differ_are_an_error(monkeypatch):
    other = 0.0
    monkeypatch.setattr(Ranks, "gather", lambda self, sums: [sums, sums + np.array([0.0, other])])
    parameters = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    two_ranks().check_same_weights(parameters)
    other = 1e-9
    with pytest.raises(RankLostError, match=r"weights of process 1 differ.*No checkpoint was written"):
        two_ranks().check_same_weights(parameters)


def test_processes_with_other_settings_are_an_error(monkeypatch):
    import accelerate

    for owner, name in ((accelerate, "PartialState"), (collectives, "object_group"), (RankMonitor, "start")):
        monkeypatch.setattr(owner, name, lambda *args, **more: None)
    other = "seed: 0"
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value, other if value == "seed: 0" else value])
    settings = JoinSettings("seed: 0", "cpu", 1.0, 0, "adamw")
    assert _connect(settings, 0, 2).world == 2
    other = "seed: 1"
    with pytest.raises(ConfigError, match="Process 1 was started with other settings than process 0"):
        _connect(settings, 0, 2)
