"""Metrics of episodes and groups, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from repro_rl.rollout.counts import group_metrics, rollout_metrics, success_rate
from repro_rl.types import Completion, Group, Reflection, Status, Step
from support.episodes import hand_episode, hand_step


def step(t: int, *, finished: bool = True, tokens: int = 2, **fields: Any) -> Step:
    completion = Completion((0,), (0,) * tokens, np.zeros(tokens, np.float32), "", finished, entropy=t / 10)
    return hand_step(t, completion, **fields)


def test_rollout_metrics_by_hand():
    one = hand_episode([step(1, online=40, env_reward=1.0), step(2, env_reward=10.0)], won=True)
    two = hand_episode([], score=0.5)
    two.steps.append(step(1, valid=False, defects=("x",), tokens=5, online=20))
    two.steps.append(step(2, finished=False, defects=("cut_off",), tokens=3))
    none = hand_episode([], status=Status.FAILED, error="boom")
    metrics = rollout_metrics([one, two, none])
    assert metrics == pytest.approx(
        {
            "rollout/success": 1 / 3,
            "rollout/score": 0.5,
            "rollout/return": 11 / 3,
            "rollout/length": 4 / 3,
            "rollout/invalid_rate": 1 / 4,
            "rollout/format_rate": 2 / 4,
            "rollout/cut_off": 1 / 4,
            "rollout/tokens": 12 / 4,
            "rollout/entropy": 0.6 / 4,
            "rollout/errors": 1.0,
            "rollout/shortened_prompts": 0.0,
            "rollout/truncated_observations": 0.0,
            "rollout/online": 30.0,
        }
    )
    assert success_rate([]) == 0
    assert rollout_metrics([])["rollout/length"] == 0
    assert "rollout/online" not in rollout_metrics([none])


def test_group_metrics_by_hand():
    def episode(won, values=None, tokens=4, **terms):
        trajectory = hand_episode([step(1, terms=terms), step(2, terms=terms)], won=won)
        if tokens:
            completion = Completion((0,), (0,) * tokens, np.zeros(tokens, np.float32), "", True)
            trajectory.reflection = Reflection("", completion, values, () if values else ("no_values",))
        return trajectory

    groups = [
        Group("a", [episode(True, (10, 100), env=5.0), episode(False, (10, 40), env=0.0, shaping=0.2)]),
        Group("b", [episode(False, (0, 20), 6), episode(False, None, 2)]),
        Group("c", [episode(True, (0, 80)), episode(True, tokens=0)]),
    ]
    metrics = group_metrics(groups)
    assert metrics == pytest.approx(
        {
            "rollout/equal_groups": 2 / 3,
            "rollout/lost_groups": 1 / 3,
            "reward/env": 10 / 6,
            "reward/shaping": 0.4 / 6,
            "reflect/valid": 4 / 5,
            "reflect/tokens": 20 / 5,
            "reflect/sampled_tokens": 20 / 5,
            "reflect/shortened_prompts": 0.0,
            "reflect/final_won": 90.0,
            "reflect/final_lost": 30.0,
        }
    )
