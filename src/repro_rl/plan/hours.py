"""Seconds of one iteration: from published peaks, or from rates measured on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from repro_rl.config import RunConfig
from repro_rl.plan.devices import Device
from repro_rl.plan.memory import precision_of
from repro_rl.plan.network import Network
from repro_rl.plan.workload import Workload


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured on this machine with this model (see ``probe``)."""

    train: float  # FLOP/s of forward and backward passes
    prefill: float  # FLOP/s of passes without gradient
    decode_pass: float  # seconds of one pass with a single new token
    decode_row: float  # seconds that each further row adds to it
    weight_step: float = 0.0  # seconds of an optimizer step for each trained weight


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one iteration."""

    prefill: float
    decode: float
    update: float
    reference: float

    @property
    def rollout(self) -> float:
        return self.prefill + self.decode

    @property
    def total(self) -> float:
        return self.prefill + self.decode + self.update + self.reference


def flops_of(config: RunConfig, net: Network, work: Workload) -> dict[str, float]:
    """FLOPs of an iteration's parts. Training counts forward and two backward; checkpointing one more."""
    prompts = work.forward_rows * max(work.prompt - work.shared, 1.0)
    prefill = net.forward_flops(prompts, work.prompt / 2, work.forward_rows)
    if work.reflect_prompt:
        prefill += net.forward_flops(
            work.episodes * work.reflect_prompt, work.reflect_prompt / 2, work.episodes
        )
    width = work.trained_cells / max(work.forward_rows + work.trained_reflections, 1.0)
    forward = net.forward_flops(work.trained_cells, width / 2, work.trained_tokens)
    layers = net.forward_flops(work.trained_cells, width / 2, 0)
    passes = 2.0 if config.policy.lora.rank else 3.0  # frozen weights need no gradient of their own
    update = work.epochs * (passes * forward + (layers if config.train.gradient_checkpointing else 0.0))
    return {
        "prefill": prefill,
        "update": update,
        "reference": forward if work.reference else 0.0,
    }


def decode_passes(config: RunConfig, work: Workload) -> list[tuple[float, float, float]]:
    """(Number of single-token passes, rows in each, mean context) of the forward and the reflection phase."""
    room = config.policy.max_batch_tokens
    out = []
    for calls, rows, prompt, new, cap in (
        (work.steps, float(work.episodes), work.prompt, work.completion, config.prompt.action_tokens),
        (
            1.0,
            float(work.episodes),
            work.reflect_prompt,
            work.reflect_completion,
            config.prompt.reflect_new_tokens,
        ),
    ):
        if not prompt:
            continue
        batches = max(1.0, rows * (prompt + cap) / room)
        out.append((calls * batches * max(new - 1, 0.0), rows / batches, prompt + new / 2))
    return out


def on_device(config: RunConfig, net: Network, work: Workload, device: Device) -> Seconds:
    """By published peaks and the device's assumed shares of them."""
    flops = flops_of(config, net, work)
    kind = precision_of(config, gpu=True)
    launch = device.launch * net.layers
    decode = 0.0
    for passes, rows, context in decode_passes(config, work):
        # Under autocast every pass reads float32 weights and writes their bfloat16 copies.
        read = float(net.parameters) * (kind.weights + (2 if kind.mixed else 0))
        read += rows * context * net.cache_bytes(kind.act)
        decode += passes * max(read / (device.bandwidth * device.decode_share), launch)
    return Seconds(
        prefill=flops["prefill"] / (device.flops * device.prefill_share),
        decode=decode,
        update=flops["update"] / (device.flops * device.train_share),
        reference=flops["reference"] / (device.flops * device.prefill_share),
    )


def by_rates(config: RunConfig, net: Network, work: Workload, rates: Rates) -> Seconds:
    """By measured rates."""
    flops = flops_of(config, net, work)
    decode = sum(
        passes * (rates.decode_pass + rates.decode_row * (rows - 1))
        for passes, rows, _ in decode_passes(config, work)
    )
    lora = config.policy.lora
    trained = net.adapter(lora.rank, lora.targets) if lora.rank else net.parameters
    steps = work.epochs * config.train.minibatches
    return Seconds(
        prefill=flops["prefill"] / rates.prefill,
        decode=decode,
        update=flops["update"] / rates.train + steps * trained * rates.weight_step,
        reference=flops["reference"] / rates.prefill,
    )
