"""Devices, dtypes, and forward passes under autocast."""

from __future__ import annotations

import pytest
import torch

from repro_rl.errors import ConfigError
from repro_rl.policy.precision import choose_precision, resolve_device
from support.models import load_cpu


@pytest.mark.parametrize("dtype", ["float33", "Tensor", ""])
def test_unknown_dtype(tiny_folder, dtype):
    with pytest.raises(ConfigError, match="not a torch dtype"):
        load_cpu(tiny_folder, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "device", "training", "weights", "mixed"),
    [
        ("auto", "cpu", False, torch.float32, False),
        ("auto", "cpu", True, torch.float32, False),
        ("auto", "cuda", False, torch.bfloat16, False),
        ("auto", "cuda:1", True, torch.float32, True),
        ("float32", "cuda", True, torch.float32, False),
        ("bfloat16", "cuda", True, torch.bfloat16, False),
        ("bfloat16", "cpu", True, torch.bfloat16, False),
    ],
)
def test_weights_to_train_are_float32(dtype, device, training, weights, mixed):
    assert choose_precision(dtype, device, training) == (weights, mixed)


def test_dtype_and_device(tiny_folder):
    assert load_cpu(tiny_folder).model.dtype == torch.float32
    assert load_cpu(tiny_folder, dtype="bfloat16").model.dtype == torch.bfloat16
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match=r"policy.device is 'gpu'"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        assert resolve_device("auto") == "cpu"
        with pytest.raises(ConfigError, match="torch sees no GPU"):
            resolve_device("cuda:1")


def test_frozen_weights_beside_an_adapter_stay_bfloat16():
    assert choose_precision("auto", "cuda", True, frozen=True) == (torch.bfloat16, True)
    assert choose_precision("auto", "cuda", False, frozen=True) == (torch.bfloat16, False)
    assert choose_precision("auto", "cpu", True, frozen=True) == (torch.float32, False)
