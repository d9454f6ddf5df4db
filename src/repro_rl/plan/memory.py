"""Bytes of a training run, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from repro_rl.config import RunConfig
from repro_rl.plan.network import Network
from repro_rl.plan.workload import Workload

# Bytes a vocabulary entry needs at one trained position, float32 throughout (train/loss.py): log-probs and
# probabilities are kept; their gradients and that of the logits exist together in the backward pass.
LOGIT_BYTES = 20
SAMPLING_BYTES = 16  # a sampled row's logits, scaled copy, log-probs, probabilities
PREFILL_LIVE = 3  # feed-forward results that exist together in a forward pass without gradient


@dataclass(frozen=True, slots=True)
class Precision:
    weights: int  # bytes of a trained (or, with an adapter, frozen) weight
    act: int  # bytes of an activation
    mixed: bool  # float32 weights under bfloat16 autocast
    reference: int  # bytes of a weight of the reference


def precision_of(config: RunConfig, gpu: bool) -> Precision:
    """As policy.choose_precision decides."""
    dtype = config.policy.dtype
    if dtype != "auto":
        size = 4 if dtype == "float32" else 2
        return Precision(size, size, False, size)
    if not gpu:
        return Precision(4, 4, False, 4)
    if config.policy.lora.rank:
        return Precision(2, 2, False, 2)
    return Precision(4, 2, True, 2)


def memory_parts(config: RunConfig, net: Network, work: Workload, gpu: bool) -> dict[str, float]:
    """Bytes by part. The peak is ``peak(parts)``: playing and updating do not need their room together."""
    kind = precision_of(config, gpu)
    total, lora = net.parameters, config.policy.lora
    trained = net.adapter(lora.rank, lora.targets) if lora.rank else total
    each = 4 if lora.rank else kind.weights  # adapters are float32
    moments = 2 * (1 if config.train.optimizer == "adamw8bit" else each)
    second_copy = config.needs_reference and not lora.rank
    parts = {
        "weights": float(total * kind.weights + (trained * each if lora.rank else 0)),
        "gradients": float(trained * each),
        "optimizer": float(trained * moments),
        "reference": float(total * kind.reference) if second_copy else 0.0,
        "copies for autocast": float(2 * net.layers * net.layer_weights) if kind.mixed else 0.0,
    }
    cells = work.update_batch_cells
    layer = net.activation_bytes(kind.weights, kind.mixed)
    if lora.rank:
        layer += 4 * 7 * lora.rank
        if kind.weights == 2:  # every adapter keeps its own float32 copy of its input
            layer += 4 * (5 * net.hidden + net.q + net.ffn)
    if config.train.gradient_checkpointing:
        parts["activations"] = cells * (net.layers * net.hidden * kind.act + layer)
    else:
        parts["activations"] = cells * net.layers * layer
    exact = 8 if config.train.kl.form == "exact" and config.train.kl.active and not lora.rank else 0
    parts["logits"] = float(work.update_batch_logits * net.vocab * (LOGIT_BYTES + exact))
    parts["cache of keys and values"] = float(work.decode_batch_cells * net.cache_bytes(kind.act))
    live = net.hidden * 4 + net.ffn * PREFILL_LIVE + net.q * 2
    parts["playing"] = float(
        work.prefill_batch_cells * live * kind.act + work.decode_rows * net.vocab * SAMPLING_BYTES
    )
    return parts


UPDATE_ONLY = ("activations", "logits", "copies for autocast")
PLAY_ONLY = ("cache of keys and values", "playing")


def peak(parts: Mapping[str, float]) -> float:
    """The larger of the two phases. Gradients stay while playing: they are dropped at the next update."""
    update = sum(size for name, size in parts.items() if name not in PLAY_ONLY)
    playing = sum(size for name, size in parts.items() if name not in UPDATE_ONLY)
    return max(update, playing)
