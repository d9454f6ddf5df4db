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


def test_logits_by_hand():
    """Float32: log-probs, probabilities, both their gradients and that of the logits; a vocabulary of 100."""
    logits = small_work(KL).update_batch_logits
    assert bytes_of(KL, gpu=False)["logits"] == logits * 100 * 20
    exact = "train.kl={form: exact, coef: 0.01}"
    assert bytes_of(exact, gpu=False)["logits"] == logits * 100 * 28
    assert bytes_of(exact, "policy.lora.rank=2", gpu=False)["logits"] == logits * 100 * 20


@pytest.mark.parametrize(("gpu", "size"), [(False, 4), (True, 2)])
def test_generation_by_hand(gpu, size):
    parts, work = bytes_of(gpu=gpu), small_work()
    # Keys and values of 2 layers with one head of 4.
    assert parts["KV cache"] == work.decode_batch_cells * 2 * 2 * 4 * size
    # 4 results of width 8, 3 of 16, 2 of the queries' 8; then 4 float32 values a vocabulary entry.
    prefill = work.prefill_batch_cells * (4 * 8 + 3 * 16 + 2 * 8) * size
    assert parts["generation"] == prefill + work.decode_rows * 100 * 16


def test_activations_by_hand():
    cells = small_work().update_batch_cells
    layer = SHAPE.activation_bytes(4, False)
    kept = 2 * 8 * 4  # of 2 layers the hidden state, float32; one layer at a time is computed again
    assert bytes_of("train.gradient_checkpointing=true", gpu=False)["activations"] == cells * (kept + layer)
    layer += 4 * 7 * 2  # behind each of 7 maps the adapter's rank 2
    assert bytes_of("policy.lora.rank=2", gpu=False)["activations"] == cells * 2 * layer
    # In bfloat16 every adapter copies its input to float32: 5 hidden states, the queries, the feed-forward.
    layer = SHAPE.activation_bytes(2, False) + 4 * 7 * 2 + 4 * (5 * 8 + 8 + 16)
    assert bytes_of("policy.lora.rank=2", gpu=True)["activations"] == cells * 2 * layer


def test_autocast_copies_by_hand():
    """Bfloat16 copies of 2 layers of 576 weights."""
    assert bytes_of(gpu=True)["autocast copies"] == 2 * 2 * 576
    assert bytes_of("policy.lora.rank=2", gpu=True)["autocast copies"] == 0


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
