"""Freed memory goes back to the system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from repro_rl.run import host_memory
from repro_rl.run.host_memory import return_freed_memory


def resident() -> int:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_holes_of_the_heap_go_back() -> None:
    if host_memory._malloc_trim() is None:
        pytest.skip("the C library is not glibc")
    torch.ones(8_000_000)  # freed: from here on glibc takes tensors of up to 32 MB from the heap
    tensors, kept = [], []
    for number in range(60):  # 240 MB, and what is not freed lies between and after them
        tensors.append(torch.ones(1_000_000 + number))
        kept.append(torch.ones(2_000))
    full = resident()
    tensors.clear()
    return_freed_memory()
    assert resident() < full - 200
    assert all(float(tensor.sum()) == 2_000 for tensor in kept)


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    host_memory._malloc_trim.cache_clear()
    monkeypatch.setattr(sys, "platform", "win32")
    try:
        assert host_memory._malloc_trim() is None
        return_freed_memory()
    finally:
        host_memory._malloc_trim.cache_clear()
