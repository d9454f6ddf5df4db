"""Measurements on this machine."""

from __future__ import annotations

import pytest
import torch

from repro_rl.config import PolicySection
from repro_rl.plan.model_shape import read_shape
from repro_rl.plan.probe_iterations import MeasuredIteration, extrapolate, probe_groups
from repro_rl.plan.probe_rates import measure_rates
from repro_rl.policy import TransformersPolicy
from support.plan_cases import small_training


def test_rates_are_measured_on_a_local_model(tiny_folder):
    policy = TransformersPolicy.load(tiny_folder, PolicySection(device="cpu"))
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    lines: list[str] = []
    rates = measure_rates(policy, read_shape(tiny_folder), small_training(), lines.append)
    assert min(rates.train, rates.prefill, rates.decode_step, rates.optimizer_weight) > 0
    assert "GFLOP/s training" in lines[0]
    assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())


def test_probed_groups_are_whole_mini_batches():
    assert probe_groups(8, 2) == (2, 4)
    assert probe_groups(64, 4) == (16, 32)
    assert probe_groups(2, 2) is None


def test_a_line_through_two_iterations_never_falls():
    smaller, larger = MeasuredIteration(2, 1.0, 10.0), MeasuredIteration(4, 1.5, 9.0)
    assert extrapolate(smaller, larger, 8) == MeasuredIteration(8, pytest.approx(2.5), 10.0)
