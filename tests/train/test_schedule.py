"""Tasks, mini-batches and ranks of an iteration: pure functions of seed and iteration."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from repro_rl.credit import ReflectionChoice
from repro_rl.errors import ConfigError
from repro_rl.policy.base import SamplingSettings
from repro_rl.train.schedule import (
    ReflectionSampling,
    check_share,
    group_owners,
    minibatch_order,
    task_schedule,
)
from repro_rl.types import Trajectory


def test_task_schedule():
    ids = [f"t{i}" for i in range(10)]
    # 4 a time: five iterations are two whole passes
    drawn = [task for i in range(1, 6) for task in task_schedule(ids, 0, i, 4)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == sorted(ids)
    assert drawn[:10] != drawn[10:]
    assert drawn[:10] != ids
    assert task_schedule(ids, 0, 3, 4) == drawn[8:12]  # a function of seed and iteration alone
    assert task_schedule(ids, 1, 1, 4) != task_schedule(ids, 0, 1, 4)
    assert sorted(task_schedule(ids, 0, 1, 25)[:10]) == sorted(ids)
    assert len(task_schedule(ids, 0, 1, 25)) == 25


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_groups_are_dealt_out_evenly_over_every_minibatch(groups, world, seed):
    order = minibatch_order(groups, 1, seed)
    owners = group_owners(groups, 1, seed, world)
    assert sorted(order) == list(range(groups))
    for count in (1, 2, 3):
        for number in range(count):
            part = [owners[g] for position, g in enumerate(order) if position * count // groups == number]
            shares = [part.count(rank) for rank in range(world)]
            assert sum(shares) == len(part)
            assert max(shares) - min(shares) <= 1


def test_fewer_groups_than_processes_are_refused():
    check_share(2, 2)
    with pytest.raises(ConfigError, match=r"train\.groups is 2, but 3 processes"):
        check_share(2, 3)


def test_trained_reflections_are_sampled_as_the_policy_acts_and_the_rest_apart():
    choice = ReflectionChoice(0.5, seed=3)
    apart = ReflectionSampling(choice, group_size=4, max_new_tokens=9, temperature=1.0, judge_temperature=0.0)
    for group in range(3):
        trained = choice.chosen(5, group, 4)
        assert len(trained) == 2
        for number in range(4):
            expected = SamplingSettings(9, 1.0 if number in trained else 0.0)
            assert apart.settings(5, group, number) == expected
            # rollouts are numbered through the iteration
            assert apart.of(5, Trajectory("a", group * 4 + number, "", [], False, 0.0)) == expected
    alike = replace(apart, judge_temperature=None)
    assert {alike.settings(5, 0, number) for number in range(4)} == {SamplingSettings(9, 1.0)}


def test_a_schedule_needs_tasks():
    with pytest.raises(ConfigError, match="there are no tasks to draw from"):
        task_schedule([], 0, 1, 4)
