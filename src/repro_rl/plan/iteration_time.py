"""Seconds of one iteration: from published peaks, or from rates measured on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from repro_rl.plan.devices import Device
from repro_rl.plan.model_shape import ModelShape
from repro_rl.plan.training_setup import TrainingSetup
from repro_rl.plan.workload import Workload


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured on this machine with this model (see ``probe_rates``)."""

    train: float  # FLOP/s of forward and backward passes
    prefill: float  # FLOP/s of passes without gradient
    decode_step: float  # seconds of a decode step with one row
    decode_row: float  # seconds that each further row adds to it
    optimizer_weight: float = 0.0  # seconds of an optimizer step for each trained weight
    packed: bool = False  # common beginnings of trained rows are computed once


@dataclass(frozen=True, slots=True)
class IterationTime:
    """Seconds of the parts of one iteration."""

    prefill: float  # forward passes over prompts
    decode: float  # decode steps
    update: float
    reference: float  # the reference model's log-probabilities

    @property
    def rollout(self) -> float:
        return self.prefill + self.decode

    @property
    def total(self) -> float:
        return self.prefill + self.decode + self.update + self.reference


@dataclass(frozen=True, slots=True)
class IterationFlops:
    """FLOPs of an iteration's parts, decode steps apart: these are bound by memory."""

    prefill: float
    update: float
    reference: float


def iteration_flops(
    shape: ModelShape, work: Workload, training: TrainingSetup, packed: bool = False
) -> IterationFlops:
    """Training counts a forward and two backward passes; checkpointing one more."""
    prompts = work.action_rows * max(work.prompt - work.shared_prefix, 1.0)
    prefill = shape.forward_flops(prompts, work.acting_context, work.action_rows)
    if work.reflect_prompt:
        prefill += shape.forward_flops(
            work.episodes * work.reflect_prompt, work.reflect_context, work.episodes
        )
    cells = work.trained_cells - (work.trained_shared if packed else 0.0)
    forward = shape.forward_flops(cells, work.trained_context, work.trained_tokens)
    layers = shape.forward_flops(cells, work.trained_context, 0)
    return IterationFlops(
        prefill=prefill,
        update=work.epochs * training.update_flops(forward, layers),
        reference=forward if work.reference else 0.0,
    )


def time_on_device(
    shape: ModelShape, work: Workload, training: TrainingSetup, device: Device
) -> IterationTime:
    """By published peaks and the device's assumed shares of them."""
    flops = iteration_flops(shape, work, training)
    precision = training.precision(gpu=True)
    latency = device.layer_latency * shape.layers
    decode = 0.0
    for phase in work.decode_phases:
        # Under autocast every pass reads float32 weights and writes their bfloat16 copies.
        read = float(shape.parameters) * (precision.weight + (2 if precision.autocast else 0))
        read += phase.rows * phase.context * shape.cache_bytes(precision.activation)
        decode += phase.steps * max(read / (device.bandwidth * device.decode_share), latency)
    return IterationTime(
        prefill=flops.prefill / (device.flops * device.prefill_share),
        decode=decode,
        update=flops.update / (device.flops * device.train_share),
        reference=flops.reference / (device.flops * device.prefill_share),
    )


def time_by_rates(shape: ModelShape, work: Workload, training: TrainingSetup, rates: Rates) -> IterationTime:
    """By measured rates."""
    flops = iteration_flops(shape, work, training, rates.packed)
    decode = sum(
        phase.steps * (rates.decode_step + rates.decode_row * (phase.rows - 1))
        for phase in work.decode_phases
    )
    optimizer = work.optimizer_steps * training.trained_parameters(shape) * rates.optimizer_weight
    return IterationTime(
        prefill=flops.prefill / rates.prefill,
        decode=decode,
        update=flops.update / rates.train + optimizer,
        reference=flops.reference / rates.prefill,
    )
