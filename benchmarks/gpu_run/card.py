"""The card, and what it reaches: the two ceilings that every other figure is a share of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from job import Job
from journal import Deadline, Journal

from repro_rl.run.folder import versions


def synchronize(device: str) -> None:
    """Wait for a GPU; nothing to wait for on a CPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(device: str, function: Callable[[], Any]) -> float:
    """Wall-clock time of ``function``, the device's work included."""
    synchronize(device)
    begin = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - begin


def median_seconds(device: str, function: Callable[[], Any], repetitions: int = 5) -> float:
    """Median of several calls after a first one that does not count."""
    function()
    return sorted(seconds(device, function) for _ in range(repetitions))[repetitions // 2]


def card(job: Job) -> dict[str, Any]:
    """What is measured on."""
    if not job.device.startswith("cuda"):
        return {"name": "CPU", "memory_bytes": None}
    properties = torch.cuda.get_device_properties(0)
    return {"name": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}


def measure(job: Job, journal: Journal, stage: str, _: Deadline) -> None:
    """Copy bandwidth (bytes read and written) and the rate of a large matrix product in bfloat16."""
    journal.note(card=card(job), versions=versions())
    source = torch.empty(job.copy_bytes // 4, dtype=torch.float32, device=job.device).normal_()
    target = torch.empty_like(source)
    copy = median_seconds(job.device, lambda: target.copy_(source))
    journal.result(stage, "bandwidth_bytes_per_s", 2 * source.numel() * 4 / copy)
    side = job.matmul
    left, right = (torch.randn(side, side, dtype=torch.bfloat16, device=job.device) for _ in range(2))
    product = median_seconds(job.device, lambda: left @ right)
    journal.result(stage, "bf16_flops_per_s", 2 * side**3 / product)


def ceilings(journal: Journal) -> tuple[float, float]:
    """Bandwidth and FLOP/s as measured by ``measure``; 0 where that failed."""
    results = journal.content["stages"].get("card", {}).get("results", {})
    return results.get("bandwidth_bytes_per_s", 0.0), results.get("bf16_flops_per_s", 0.0)
