"""Warmup never applies a gradient that is not finite, and writes no warm start of NaN."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from repro_rl.config import load_config
from repro_rl.errors import TrainingStopped
from repro_rl.run.setup import set_up
from repro_rl.train import run_warmup, sft
from repro_rl.train.sft import MAX_SKIPPED, WarmupRun
from support.command import run_command
from support.models import equal_weights, load_cpu, weights_of

SHORT = ["warmup.updates=30", "warmup.save_every=4", "warmup.lr_warmup=0"]


@pytest.mark.parametrize("more", [["warmup.lr=1e20", "warmup.grad_clip=1e9"], ["warmup.lr=1e30"]])
def test_a_warmup_that_diverges_stops_and_writes_nothing(warm, tmp_path, more, capsys, monkeypatch):
    settings = [*warm.settings, *SHORT, *more]
    out = tmp_path / "w"
    status, text = run_command(capsys, monkeypatch, "warmup", "--demos", warm.demos, "-o", out, *settings)
    assert status == 2
    assert "Lower" in text
    assert not (out / "model").exists()
    for folder in (out / "checkpoints").glob("[0-9]*"):
        assert all(bool(torch.isfinite(w).all()) for w in weights_of(load_cpu(folder).model).values())
    for line in (out / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in the metrics"))


def test_one_bad_update_is_skipped_and_the_next_ones_are_applied(warm, tmp_path):
    """As a micro-batch whose loss overflows: the weights stay, and so does the optimizer."""
    run = WarmupRun(set_up(load_config(None, [*warm.settings, *SHORT])), warm.demos, tmp_path / "w")
    assert run.data
    run.state.iteration = 1
    first = run._step()
    assert first["warmup/skipped"] == 0
    before, parameter = weights_of(run.policy.model), run.policy.model.model.norm.weight
    steps = {int(state["step"]) for state in run.optimizer.state.values()}
    handle = parameter.register_hook(lambda gradient: gradient * float("nan"))
    row = run._step()
    assert row["warmup/skipped"] == 1
    assert not any(name.endswith("_loss") for name in row)
    assert equal_weights(before, weights_of(run.policy.model))
    assert {int(state["step"]) for state in run.optimizer.state.values()} == steps
    handle.remove()
    assert run._step()["warmup/skipped"] == run.state.skipped == 0
    assert not equal_weights(before, weights_of(run.policy.model))


def test_warmup_stops_after_skipped_updates_in_a_row_or_at_the_end(warm, tmp_path):
    for name, updates, stopped_at in (("long", 30, MAX_SKIPPED), ("short", 2, 2)):
        settings = [*warm.settings, *SHORT, f"warmup.updates={updates}", "warmup.save_every=1"]
        run = WarmupRun(set_up(load_config(None, settings)), warm.demos, tmp_path / name)
        run.policy.model.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
        with pytest.raises(
            TrainingStopped, match=f"stopped at update {stopped_at}: .* last {stopped_at} updates"
        ):
            run.train()
        assert not list((tmp_path / name / "checkpoints").glob("*"))
        assert len((tmp_path / name / "metrics.jsonl").read_text().splitlines()) == stopped_at


def test_a_run_that_works_is_what_it_was(warm, tmp_path, monkeypatch):
    """The checks change no bit: the same warm start without them, and no update skipped."""
    monkeypatch.setattr(sft, "math", SimpleNamespace(isfinite=lambda value: True))
    rows: list[dict] = []
    model = run_warmup(load_config(None, warm.settings), warm.demos, tmp_path / "w", rows.append)
    assert not any(row["warmup/skipped"] for row in rows)
    assert equal_weights(weights_of(load_cpu(model).model), weights_of(load_cpu(warm.model).model))
