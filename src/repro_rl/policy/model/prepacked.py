"""Linear weights that oneDNN has reordered once, on an x86 CPU and without gradients.

torch's own linear layer brings the weights into the order of its kernel at every call. For the few rows of a
decode step that takes a third to a half of the call. ``torch.compile`` reorders frozen weights once instead;
here it is done with the same two operators. In bfloat16 the results are the same bit for bit, in float32 up
to the order of sums. docs/benchmarks-cpu.md has the figures.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from repro_rl.policy.model.processor import mkl_leaves_avx512

LEAST_INPUTS = 256  # a narrower layer is bound by the calls around it
ROWS = 32  # the order is chosen for so many rows; it was the fastest for 1 to 2,048 as well
SHARE = 0.25  # of the machine's memory that all copies together may take

KINDS = (torch.float32, torch.bfloat16)  # dtypes that oneDNN has kernels for


class _Copies:
    """Reordered copies of weights, as long as the weights live and are not changed."""

    def __init__(self) -> None:
        self._copies: Any = WeakIdKeyDictionary()  # weight -> (its version and address, the copy)

    def of(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The copy of ``weight`` [out, in]; None where it is not to be had or there is no room for it."""
        found = self._copies.get(weight)
        state = weight._version, weight.data_ptr()
        if found is not None and found[0] == state:
            copy: torch.Tensor = found[1]
            return copy
        self.drop(weight)
        if self.bytes() + _size(weight) > _room():
            return None
        copy = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self._copies[weight] = state, copy
        return copy

    def drop(self, weight: torch.Tensor) -> None:
        """Free the copy of ``weight``, if there is one."""
        self._copies.pop(weight, None)

    def bytes(self) -> int:
        """Memory of all copies."""
        return sum(_size(weight) for weight in self._copies)


_copies = _Copies()


def multiply_reordered(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor | None:
    """``layer(x)`` for states ``x`` [N, in] over reordered weights; None where these would not help."""
    if not _reorders(layer.weight, x):
        return None
    copy = _copies.of(layer.weight)
    return None if copy is None else multiply(x, copy, layer.bias)


def multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + b by oneDNN for ``x`` [N, in]; ``weight`` [out, in] as it is, or reordered."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def free_copies(weights: Iterable[torch.Tensor]) -> None:
    """Free the copies of ``weights``: these are about to change, or have changed behind autograd's back."""
    for weight in weights:
        _copies.drop(weight)


def reorders(dtype: torch.dtype, inputs: int) -> bool:
    """Whether this machine computes layers of so many inputs in ``dtype`` over reordered weights."""
    return inputs >= LEAST_INPUTS and dtype in supported()


def fewest_rows(dtype: torch.dtype) -> int:
    """How many rows it takes for reordered weights to be faster than torch's own layer.

    In float32 on Intel's processors MKL reads the weights as they are for up to three rows. That is 1.1 to
    1.5 times as fast there. Where MKL leaves AVX-512 unused, one row takes half the time over reordered
    weights.
    """
    return 4 if dtype == torch.float32 and not mkl_leaves_avx512() else 1


def copies_bytes(inputs: int, weights: float, size: int) -> float:
    """Bytes that the copies of a model's linear weights, of ``size`` bytes each, take on this machine."""
    dtype = torch.float32 if size == 4 else torch.bfloat16
    return min(weights * size, _room()) if reorders(dtype, inputs) else 0.0


def _reorders(weight: torch.Tensor, x: torch.Tensor) -> bool:
    return (
        reorders(weight.dtype, weight.shape[1])
        and weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and len(x) >= fewest_rows(weight.dtype)
    )


def _size(weight: torch.Tensor) -> int:
    return weight.numel() * weight.element_size()


@cache
def supported() -> frozenset[torch.dtype]:
    """The dtypes for which this processor and this torch have the operators."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if (
        platform.machine() not in ("x86_64", "AMD64")
        or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        or not all(hasattr(torch.ops.mkldnn, name) for name in names)
    ):
        return frozenset()
    bfloat16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return frozenset(kind for kind in KINDS if bfloat16 or kind != torch.bfloat16)


@cache
def _room() -> float:
    """Bytes that the copies of this process may take.

    A share of the memory that the machine has, not of what is free now. So a repeated command computes the
    same sums in the same order. Ranks on one machine divide it.
    """
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")  # set by torchrun
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return SHARE * memory / max(1, int(ranks) if ranks.isdecimal() else 1)
    except (ValueError, OSError, AttributeError):
        return 0.0
