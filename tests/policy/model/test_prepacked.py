"""Linear layers over reordered weights: the same values, never those of weights that have changed."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings, strategies as st

from repro_rl.policy.model import prepacked
from repro_rl.policy.model.linear import apply_linear
from repro_rl.policy.model.prepacked import LEAST_INPUTS, fewest_rows, free_copies, reorders

KINDS = [kind for kind in (torch.float32, torch.bfloat16) if reorders(kind, LEAST_INPUTS)]
pytestmark = pytest.mark.skipif(not KINDS, reason="this processor or this torch has no such operators")


def layer_of(inputs: int, outputs: int, kind: torch.dtype, bias: bool = False) -> torch.nn.Linear:
    torch.manual_seed(inputs + outputs)
    return torch.nn.Linear(inputs, outputs, bias=bias).to(kind)


def copied(layer: torch.nn.Linear) -> bool:
    return layer.weight in prepacked._copies._copies


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(KINDS or [torch.float32]),
    rows=st.integers(1, 300),
    inputs=st.integers(LEAST_INPUTS, 700),
    outputs=st.integers(1, 600),
    bias=st.booleans(),
)
def test_the_values_are_those_of_the_layer(
    kind: torch.dtype, rows: int, inputs: int, outputs: int, bias: bool
) -> None:
    layer = layer_of(inputs, outputs, kind, bias)
    x = torch.randn(rows, inputs).to(kind)
    with torch.no_grad():
        wanted, got = layer(x), apply_linear(layer, x)
    assert copied(layer) == (rows >= fewest_rows(kind))
    assert got.dtype == kind
    # The sums are of terms near 1 / sqrt(inputs); bfloat16 is rounded once, at the end.
    torch.testing.assert_close(got, wanted, rtol=1e-2 if kind == torch.bfloat16 else 1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_changed_weights_are_never_computed_with(kind: torch.dtype) -> None:
    layer = layer_of(256, 64, kind)
    x = torch.randn(4, 256).to(kind)
    with torch.no_grad():
        before = apply_linear(layer, x)
        layer.weight.mul_(2)  # as an optimizer does
        torch.testing.assert_close(apply_linear(layer, x), 2 * before)
        layer.weight.data = layer.weight.data / 2  # another tensor in its place
        torch.testing.assert_close(apply_linear(layer, x), before)
        layer.weight.data.mul_(2)  # leaves no trace: whoever does so says it
        free_copies(layer.parameters())
        torch.testing.assert_close(apply_linear(layer, x), 2 * before)


def test_what_is_left_to_the_layer_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked, "mkl_leaves_avx512", lambda: False)
    layer, x = layer_of(256, 8, torch.float32), torch.randn(4, 256)
    assert apply_linear(layer, x).requires_grad  # gradients
    assert apply_linear(torch.nn.Identity(), x) is x  # another layer
    with torch.no_grad():
        assert apply_linear(layer, x[:0]).shape == (0, 8)
        assert torch.equal(apply_linear(layer, x[:3]), layer(x[:3]))  # three rows of float32, bit for bit
        with torch.autocast("cpu", torch.bfloat16):
            assert apply_linear(layer, x.bfloat16()).dtype == torch.bfloat16  # another dtype
        narrow = layer_of(LEAST_INPUTS - 1, 8, torch.float32)
        apply_linear(narrow, torch.randn(4, LEAST_INPUTS - 1))
        monkeypatch.setattr(prepacked, "_room", lambda: 100.0)
        torch.testing.assert_close(apply_linear(layer, x), layer(x))  # no room
    assert not copied(layer)
    assert not copied(narrow)


def test_the_fewest_rows_by_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for slow, rows in ((False, 4), (True, 1)):
        monkeypatch.setattr(prepacked, "mkl_leaves_avx512", lambda slow=slow: slow)
        assert fewest_rows(torch.float32) == rows
        assert fewest_rows(torch.bfloat16) == 1


def test_copies_end_with_their_weights() -> None:
    layer = layer_of(256, 8, torch.float32)
    before = prepacked._copies.bytes()
    with torch.no_grad():
        apply_linear(layer, torch.randn(4, 256))
    assert prepacked._copies.bytes() == before + 256 * 8 * 4
    del layer
    gc.collect()
    assert prepacked._copies.bytes() == before


def test_ranks_of_a_machine_divide_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    prepacked._room.cache_clear()
    alone = prepacked._room()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    prepacked._room.cache_clear()
    assert prepacked._room() == alone / 4 > 0
    prepacked._room.cache_clear()
