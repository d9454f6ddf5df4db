"""Bytes of a run, by hand."""

from __future__ import annotations

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
