"""Bytes of a training run, part by part."""

from __future__ import annotations

from collections.abc import Mapping

from repro_rl.plan.model_shape import ModelShape
from repro_rl.plan.training_setup import TrainingSetup
from repro_rl.plan.workload import Workload
from repro_rl.policy.decoding.static.pool import KEPT_SHARE
from repro_rl.policy.model.prepacked import copies_bytes

# Bytes of a vocabulary entry at one trained position, all float32: log-probabilities and probabilities are
# kept; in the backward pass their gradients and that of the logits exist together.
LOGIT_BYTES = 20
EXACT_KL_BYTES = 8  # more of them where whole distributions are compared
SAMPLING_BYTES = 16  # of an entry at a sampled row: logits, scaled copy, log-probabilities, probabilities
PREFILL_COPIES = 3  # feed-forward results that exist together in a forward pass without gradient

AUTOCAST, ACTIVATIONS, LOGITS = "autocast copies", "activations", "logits"
KV_CACHE, GENERATION, REORDERED = "KV cache", "generation", "reordered weights"
UPDATE_ONLY = (ACTIVATIONS, LOGITS)
ROLLOUT_ONLY = (KV_CACHE, GENERATION, REORDERED)


def memory_parts(
    shape: ModelShape, work: Workload, training: TrainingSetup, gpu: bool, packed: bool = False
) -> dict[str, float]:
    """Bytes by part; the most that is needed at once is ``peak(parts)``.

    ``packed``: update and rollout have the forward pass of ``policy.forward.packed``.
    """
    precision = training.precision(gpu)
    parts = _weight_parts(shape, training, gpu)
    parts[ACTIVATIONS] = _activations(shape, work, training, gpu)
    exact = EXACT_KL_BYTES if training.exact_kl and not training.adapter else 0
    logits = work.update_batch_logits
    if (packed or gpu) and work.packed_logits is not None:  # of the trained tokens alone
        logits = work.packed_logits
    parts[LOGITS] = float(logits * shape.vocab * (LOGIT_BYTES + exact))
    parts[KV_CACHE] = float(work.decode_batch_cells * shape.cache_bytes(precision.activation))
    width = shape.hidden * 4 + shape.ffn * PREFILL_COPIES + shape.query_width * 2
    parts[GENERATION] = float(
        work.prefill_batch_cells * width * precision.activation
        + work.decode_rows * shape.vocab * SAMPLING_BYTES
    )
    if packed and not gpu:
        parts[REORDERED] = copies_bytes(
            shape.hidden, shape.layers * shape.layer_weights + shape.vocab * shape.hidden, precision.weight
        )
    return parts


def peak(parts: Mapping[str, float], gpu_memory: float | None = None) -> float:
    """Bytes of the larger phase, update or rollout: what only one of them needs is freed in the other.

    Gradients stay during the rollout: they are freed at the next update. On a GPU of ``gpu_memory`` bytes
    KV cache and copies of weights stay during the update while they are a small share of it.
    """
    update = sum(size for name, size in parts.items() if name not in ROLLOUT_ONLY)
    rollout = sum(size for name, size in parts.items() if name not in UPDATE_ONLY)
    kept = parts[KV_CACHE] + parts[AUTOCAST]
    if gpu_memory is not None and kept <= KEPT_SHARE * gpu_memory:
        update += kept
    return max(update, rollout)


def _weight_parts(shape: ModelShape, training: TrainingSetup, gpu: bool) -> dict[str, float]:
    """What the number of weights decides."""
    precision = training.precision(gpu)
    total, trained = shape.parameters, training.trained_parameters(shape)
    trained_bytes = 4 if training.adapter else precision.weight  # adapters are float32
    moments = 2 * (1 if training.optimizer == "adamw8bit" else trained_bytes)
    adapter = trained * trained_bytes if training.adapter else 0
    return {
        "weights": float(total * precision.weight + adapter),
        "gradients": float(trained * trained_bytes),
        "optimizer": float(trained * moments),
        "reference": float(total * precision.reference) if training.reference_copy else 0.0,
        AUTOCAST: float(2 * shape.layers * shape.layer_weights) if precision.autocast else 0.0,
    }


def _activations(shape: ModelShape, work: Workload, training: TrainingSetup, gpu: bool) -> float:
    """Of the largest micro-batch."""
    precision = training.precision(gpu)
    layer = shape.activation_bytes(precision.weight, precision.autocast)
    if training.adapter:
        layer += 4 * 7 * training.adapter_rank
        if precision.weight == 2:  # every adapter keeps its own float32 copy of its input
            layer += 4 * (5 * shape.hidden + shape.query_width + shape.ffn)
    if training.checkpointing:
        kept = shape.layers * shape.hidden * precision.activation
        return work.update_batch_cells * (kept + layer)
    return work.update_batch_cells * shape.layers * layer
