"""Errors for want of memory become sentences; others pass."""

from __future__ import annotations

import pytest
import torch

from repro_rl.errors import DeviceMemoryError
from repro_rl.policy.model.memory import SAMPLING, memory_explained

HOST = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: 8 bytes"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB."),
            "CUDA out of memory. Tried",
        ),
        (RuntimeError(HOST), "enforce fail"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "MPS backend"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "cublasCreate"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_the_message_has_the_reason_and_what_to_lower(error, reason):
    with (
        pytest.raises(DeviceMemoryError, match="Out of memory while sampling: ") as caught,
        memory_explained("sampling", SAMPLING),
    ):
        raise error
    text = str(caught.value)
    assert reason in text
    assert "policy.max_cache_tokens" in text
    assert "\n" not in text
    assert caught.value.__cause__ is error


def test_what_is_explained_once_is_not_explained_again():
    with (
        pytest.raises(DeviceMemoryError, match="while scoring") as caught,
        memory_explained("training", "less"),
        memory_explained("scoring", "less"),
    ):
        raise MemoryError
    assert "while training" not in str(caught.value)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes") as caught, memory_explained("sampling", SAMPLING):
        raise RuntimeError("shapes do not fit")
    assert not isinstance(caught.value, DeviceMemoryError)
