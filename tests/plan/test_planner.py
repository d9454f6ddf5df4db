"""Whole plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repro_rl.config import load_config
from repro_rl.plan import probe
from repro_rl.plan.devices import find_device
from repro_rl.plan.iteration_time import Rates
from repro_rl.plan.planner import PlanOptions, make_plan
from repro_rl.policy import TransformersPolicy


def test_large_full_training_does_not_fit_where_an_adapter_does():
    def fits(*overrides: str) -> bool:
        config = load_config("paper/sokoban-4b", [*overrides])
        plan = make_plan(config, [find_device("h100")], PlanOptions(tasks=1))
        assert any("characters are taken for a token" in note for note in plan.notes)
        return plan.estimates[0].fits

    assert not fits()
    assert fits("policy.lora.rank=64")


def test_a_tiny_run_is_planned_by_running_a_part(warm):
    settings = [*warm.settings, "train={groups: 8, group_size: 4, minibatches: 2, validate_every: 0}"]
    before = {path: path.stat().st_mtime_ns for path in Path(warm.model).iterdir()}
    config = load_config(None, [*settings, f"train.init={warm.model}"])
    plan = make_plan(config, [], PlanOptions(probe=True, tasks=4))
    (estimate,) = plan.estimates
    assert plan.run.shape.parameters < 100_000
    assert estimate.iteration > 0
    assert 50e6 < estimate.peak < 20e9
    assert estimate.hours == pytest.approx(40 * estimate.iteration / 3600)
    assert before == {path: path.stat().st_mtime_ns for path in Path(warm.model).iterdir()}


def test_a_probe_measures_the_adapter_that_is_trained(warm, monkeypatch):
    trained: list[set[str]] = []

    def measured(policy: TransformersPolicy, *arguments: Any) -> Rates:
        trained.append({name for name, p in policy.model.named_parameters() if p.requires_grad})
        return Rates(train=1e9, prefill=1e9, decode_step=1e-3, decode_row=1e-4)

    monkeypatch.setattr(probe, "SMALL_MODEL", 0)
    monkeypatch.setattr(probe, "measure_rates", measured)
    for more in ([], ["policy.lora.rank=2"]):
        config = load_config(
            None, [*warm.settings, "train.validate_every=0", f"train.init={warm.model}", *more]
        )
        make_plan(config, [], PlanOptions(probe=True, tasks=4))
    whole, adapter = trained
    assert not any("lora" in name for name in whole)
    assert adapter
    assert all("lora" in name for name in adapter)
