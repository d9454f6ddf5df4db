"""Bytes of a run, by hand."""

from __future__ import annotations

import pytest

from repro_rl.plan.memory import memory_parts, peak
from support.plan_cases import SHAPE, small_training, small_work

KL = "train.kl={form: k3, coef: 0.01}"


def bytes_of(*overrides: str, gpu: bool) -> dict[str, float]:
    return memory_parts(SHAPE, small_work(*overrides), small_training(*overrides), gpu)


def test_full_training_by_hand():
    parts = bytes_of(KL, gpu=False)
    size = SHAPE.parameters
    assert parts["weights"] == parts["gradients"] == parts["reference"] == 4 * size
    assert parts["optimizer"] == 8 * size
    assert parts["autocast copies"] == 0
    cells = small_work(KL).update_batch_cells
    assert parts["activations"] == cells * 2 * SHAPE.activation_bytes(4, False)
    assert peak(parts) < sum(parts.values())  # rollout and update take turns
    assert bytes_of("train.optimizer=adamw8bit", gpu=True)["optimizer"] == 2 * size


def test_an_adapter_needs_little_and_no_second_copy():
    parts = bytes_of(KL, "policy.lora.rank=2", gpu=True)
    adapter = SHAPE.adapter_parameters(2, "all-linear")
    assert parts["weights"] == 2 * SHAPE.parameters + 4 * adapter
    assert parts["optimizer"] == 8 * adapter
    assert parts["reference"] == 0  # the adapter is switched off instead


def test_the_reference_model_is_counted_where_it_is_kept():
    judged = bytes_of("train.kl.form=none", "method=repro-fixed-judge", gpu=False)
    assert judged["reference"] == 4 * SHAPE.parameters  # the judge is a second copy
    assert bytes_of("train.kl.form=none", "method.rehearsal=0", gpu=False)["reference"] == 0


def test_the_copies_that_a_cpu_decodes_with(monkeypatch):
    """As large as the linear weights, the output's among them, and only while it samples."""
    monkeypatch.setattr("repro_rl.plan.memory.copies_bytes", lambda inputs, weights, size: weights * size)
    parts = memory_parts(SHAPE, small_work(), small_training(), gpu=False, packed=True)
    linear = SHAPE.layers * SHAPE.layer_weights + SHAPE.vocab * SHAPE.hidden
    assert parts["reordered weights"] == 4 * linear
    without = memory_parts(SHAPE, small_work(), small_training(), gpu=False)
    assert "reordered weights" not in without
    assert "reordered weights" not in memory_parts(
        SHAPE, small_work(), small_training(), gpu=True, packed=True
    )
    rollout = {name: size for name, size in parts.items() if name != "activations"}
    assert peak({**rollout, "activations": 0.0, "logits": 0.0}) - peak(
        {**without, "activations": 0.0, "logits": 0.0}
    ) == pytest.approx(4 * linear)


def test_on_a_gpu_small_caches_stay_during_the_update():
    parts = bytes_of(KL, gpu=True)
    kept = parts["KV cache"] + parts["autocast copies"]
    assert parts["autocast copies"] > 0
    parts["activations"] += 10 * sum(parts.values())  # the larger phase is the update
    update = sum(size for name, size in parts.items() if name not in ("KV cache", "generation"))
    assert peak(parts) == update
    assert peak(parts, gpu_memory=4 * kept) == update + kept
    assert peak(parts, gpu_memory=3 * kept) == update  # more than 30 % of it: freed


def test_in_a_rollout_decoders_have_copies_of_the_weights_as_well():
    parts = {**bytes_of(KL, gpu=True), "activations": 0.0, "logits": 0.0, "KV cache": 1e12}
    assert peak(parts) == sum(parts.values())
