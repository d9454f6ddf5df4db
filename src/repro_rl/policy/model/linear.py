"""How the linear layers of the packed forward pass are computed, with gradients and without."""

from __future__ import annotations

from typing import Any

import torch

from repro_rl.policy.model.prepacked import multiply, multiply_reordered, supported
from repro_rl.policy.model.processor import mkl_leaves_avx512

MIN_PRODUCTS = 2**20  # of a matrix product; in a smaller one oneDNN's call costs more than it saves


def apply_linear(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """``layer(x)`` for states ``x`` [N, in], by what is the fastest way to it on this machine.

    Without gradients over reordered weights, where they help; in float32 by oneDNN, where that is faster than
    MKL. Any other layer, an adapter's for one, is called as it is.
    """
    product: torch.Tensor | None = None
    if type(layer) is torch.nn.Linear:
        if not torch.is_grad_enabled():
            product = multiply_reordered(layer, x)
        if product is None and x.dtype == layer.weight.dtype and _prefers_onednn(layer.weight, len(x)):
            product = OneDnnLinear.apply(x, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return layer(x) if product is None else product


class OneDnnLinear(torch.autograd.Function):
    """y = x W^T + b in float32 by oneDNN, and both products of the backward pass as well."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """[N, out] of ``x`` [N, in], ``weight`` [out, in] and ``bias`` [out]."""
        ctx.save_for_backward(x, weight)
        return multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of ``x``, ``weight`` and ``bias``, those that are asked for."""
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            multiply(gradient, weight.t()) if to_x else None,
            multiply(gradient.t(), x.t()) if to_weight else None,
            gradient.sum(0) if to_bias else None,
        )


def _prefers_onednn(weight: torch.Tensor, rows: int) -> bool:
    return (
        mkl_leaves_avx512()
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and rows * weight.numel() >= MIN_PRODUCTS
        and weight.dtype in supported()
        and not torch.is_autocast_enabled("cpu")
    )
