"""Devices that a run may be planned for: published peaks, and the shares of them that are assumed.

The shares are assumptions about this trainer on eager transformers, not measurements: nothing here was run on
a GPU by us. ``--probe`` measures instead, on the machine at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro_rl.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator, and which share of its peaks this trainer is assumed to reach."""

    name: str
    memory: float  # bytes
    flops: float  # dense bfloat16 FLOP/s, published peak
    bandwidth: float  # bytes/s, published peak
    train_share: float = 0.35  # of the FLOP/s, in forward and backward passes
    prefill_share: float = 0.40  # of the FLOP/s, in forward passes over prompts
    decode_share: float = 0.50  # of the bandwidth, in decode steps
    layer_latency: float = 0.6e-3  # least seconds of one layer in a forward pass, in eager mode


DEVICES = {
    "h100": Device("NVIDIA H100 SXM 80 GB", 80e9, 989e12, 3.35e12),
    "h200": Device("NVIDIA H200 141 GB", 141e9, 989e12, 4.8e12),
    "a100-80": Device("NVIDIA A100 SXM 80 GB", 80e9, 312e12, 2.04e12),
    "l40s": Device("NVIDIA L40S 48 GB", 48e9, 362e12, 0.864e12),
}


def find_device(name: str) -> Device:
    """The device of that name in ``DEVICES``. Raises ConfigError for an unknown name."""
    if name not in DEVICES:
        raise ConfigError(f"Unknown GPU {name!r}{did_you_mean(name, [*DEVICES, 'cpu'])}")
    return DEVICES[name]
