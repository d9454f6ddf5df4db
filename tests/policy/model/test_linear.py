"""Linear layers with gradients, by oneDNN: the values and gradients of torch's own layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from repro_rl.policy.model import linear
from repro_rl.policy.model.linear import MIN_PRODUCTS, OneDnnLinear, apply_linear
from repro_rl.policy.model.prepacked import supported

needs_operator = pytest.mark.skipif(
    torch.float32 not in supported(), reason="this processor or this torch has no such operators"
)


@pytest.fixture
def slow_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor whose AVX-512 MKL does not use."""
    monkeypatch.setattr(linear, "mkl_leaves_avx512", lambda: True)


@needs_operator
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 80),
    inputs=st.integers(1, 90),
    outputs=st.integers(1, 90),
    bias=st.booleans(),
    wanted=st.tuples(st.booleans(), st.booleans()).filter(any),
    transposed=st.booleans(),
)
def test_values_and_gradients(
    rows: int, inputs: int, outputs: int, bias: bool, wanted: tuple[bool, bool], transposed: bool
) -> None:
    """Of inputs and weights, or of one of them; also of rows that do not lie one behind another."""
    torch.manual_seed(rows)
    layer = torch.nn.Linear(inputs, outputs, bias=bias).requires_grad_(wanted[1])
    states = torch.randn(inputs, rows).t() if transposed else torch.randn(rows, inputs)
    given_gradient = torch.randn(outputs, rows).t() if transposed else torch.randn(rows, outputs)
    found = []
    for function in (layer, lambda x: OneDnnLinear.apply(x, layer.weight, layer.bias)):
        x = states.clone().requires_grad_(wanted[0])
        layer.zero_grad(set_to_none=True)
        y = function(x)
        y.backward(given_gradient)
        found.append([y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())])
    for theirs, ours in zip(*found, strict=True):
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_operator
@pytest.mark.usefixtures("slow_mkl")
def test_where_onednn_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, for products that are large enough, with gradients and without; not under autocast."""
    layer = torch.nn.Linear(64, 128, bias=False)
    rows = MIN_PRODUCTS // (64 * 128)
    x = torch.randn(rows, 64)

    def by_onednn(layer: torch.nn.Linear, x: torch.Tensor) -> bool:
        return type(apply_linear(layer, x).grad_fn).__name__ == "OneDnnLinearBackward"

    assert by_onednn(layer, x)
    assert not by_onednn(layer, x[1:])
    assert not by_onednn(torch.nn.Linear(64, 128).bfloat16(), x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not by_onednn(layer, x)
    with torch.no_grad():
        torch.testing.assert_close(apply_linear(layer, x), layer(x), rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(linear, "mkl_leaves_avx512", lambda: False)
    assert not by_onednn(layer, x)
