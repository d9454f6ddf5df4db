"""One optimizer step on accumulated gradients."""

from __future__ import annotations

import math

import pytest
import torch

from repro_rl.dist.ranks import ALONE
from repro_rl.train.step import apply_gradients


def weights_with_gradient(*gradient):
    """A layer of weights 1, 1 with this gradient, and plain gradient descent on it."""
    layer = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(layer.weight)
    layer.weight.grad = torch.tensor([gradient])
    return layer, torch.optim.SGD(layer.parameters(), lr=1.0)


@pytest.mark.parametrize(
    ("grad_clip", "after"),
    [(10.0, [-2.0, -3.0]), (1.0, [1 - 0.6, 1 - 0.8])],
    ids=["within the bound", "clipped"],
)
def test_the_gradient_is_clipped_and_applied_and_its_norm_returned(grad_clip, after):
    layer, optimizer = weights_with_gradient(3.0, 4.0)
    norm = apply_gradients(layer, optimizer, ALONE, grad_clip, finite=True)
    assert norm == pytest.approx(5.0)
    assert layer.weight.tolist() == [pytest.approx(after, rel=1e-5)]


@pytest.mark.parametrize(
    ("gradient", "finite"), [((math.nan, 1.0), True), ((math.inf, 1.0), True), ((3.0, 4.0), False)]
)
def test_what_is_not_finite_is_not_applied(gradient, finite):
    layer, optimizer = weights_with_gradient(*gradient)
    assert apply_gradients(layer, optimizer, ALONE, 1.0, finite=finite) is None
    assert layer.weight.tolist() == [[1.0, 1.0]]
