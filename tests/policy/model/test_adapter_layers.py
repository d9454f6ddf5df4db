"""The shorter forward pass of adapted layers against peft's own."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings, strategies as st

peft = pytest.importorskip("peft", reason="needs repro-rl[lora]")
from repro_rl.policy.model.adapter_layers import AdaptedLinear, shorten  # noqa: E402


class One(torch.nn.Module):
    """A model of one linear layer, 6 to 5."""

    def __init__(self, bias: bool = False):
        super().__init__()
        self.layer = torch.nn.Linear(6, 5, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def pair(dtype=torch.float32, *, bias=False, seed=0, **options):
    """The same adapted model twice: with peft's layer, and with ours."""
    torch.manual_seed(seed)
    options = {"r": 3, "lora_alpha": 5, "target_modules": ["layer"], "init_lora_weights": False, **options}
    theirs = peft.get_peft_model(One(bias).to(dtype), peft.LoraConfig(**options)).eval()
    ours = copy.deepcopy(theirs)
    shorten(ours)
    return theirs, ours


def layer(model):
    return model.base_model.model.layer


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.integers(0, 4), min_size=0, max_size=2),
    bias=st.booleans(),
    rank=st.integers(1, 7),
    alpha=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_are_those_of_peft(rows, bias, rank, alpha, seed):
    theirs, ours = pair(bias=bias, seed=seed, r=rank, lora_alpha=alpha)
    assert type(layer(ours)) is AdaptedLinear
    x = torch.randn(*rows, 6)
    gradients = []
    for model in (theirs, ours):
        point = x.clone().requires_grad_()
        out = model(point)
        (out * torch.arange(5.0)).sum().backward()
        gradients.append([out, point.grad, *(p.grad for p in model.parameters() if p.requires_grad)])
    for expected, found in zip(*gradients, strict=True):
        assert expected.shape == found.shape
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_value_worked_by_hand():
    _, ours = pair(r=1, lora_alpha=3)  # a scale of 3
    with torch.no_grad():
        layer(ours).base_layer.weight.fill_(1.0)
        layer(ours).lora_A["default"].weight.fill_(2.0)
        layer(ours).lora_B["default"].weight.copy_(torch.arange(5.0)[:, None])
        out = ours(torch.ones(6))
    assert out.tolist() == [6 + 3 * k * 12 for k in range(5)]


def test_weights_in_bfloat16_have_gradients_in_float32():
    theirs, ours = pair(torch.bfloat16)
    x = torch.randn(7, 6).bfloat16()
    for model in (theirs, ours):
        model(x).float().square().sum().backward()
    for name in ("lora_A", "lora_B"):
        expected, found = (getattr(layer(model), name)["default"].weight.grad for model in (theirs, ours))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
    assert ours(x).dtype == torch.bfloat16
    torch.testing.assert_close(ours(x), theirs(x), rtol=0.02, atol=0.02)


def test_under_autocast_the_sum_is_in_bfloat16():
    theirs, ours = pair()
    x = torch.randn(7, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(x), theirs(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"lora_bias": True, "bias": True}], ids=["dora", "bias of the adapter"]
)
def test_variants_run_peft_s_own_pass(options):
    theirs, ours = pair(**options)
    x = torch.randn(4, 6)
    assert torch.equal(ours(x), theirs(x))


def test_dropout_is_peft_s_while_it_is_on():
    theirs, ours = pair(lora_dropout=0.5)
    x = torch.randn(4, 6)
    torch.testing.assert_close(ours(x), theirs(x))  # off
    drawn = []
    for model in (theirs.train(), ours.train()):
        torch.manual_seed(1)
        drawn.append(model(x))
    assert torch.equal(*drawn)
    assert not torch.allclose(drawn[0], ours.eval()(x))


def test_switched_off_merged_and_several_adapters():
    theirs, ours = pair()
    x = torch.randn(4, 6)
    with ours.disable_adapter():
        assert torch.equal(ours(x), layer(ours).base_layer(x))
    for model in (theirs, ours):
        torch.manual_seed(2)
        model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["layer"], init_lora_weights=False))
        layer(model).set_adapter(["default", "second"])
    assert torch.equal(ours(x), theirs(x))
    for model in (theirs, ours):
        layer(model).set_adapter("second")
    torch.testing.assert_close(ours(x), theirs(x))
    ours.merge_adapter()
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_shortened_model_is_merged_like_any():
    theirs, ours = pair()
    x = torch.randn(4, 6)
    whole = copy.deepcopy(ours).merge_and_unload()
    assert type(whole.layer) is torch.nn.Linear
    torch.testing.assert_close(whole(x), theirs(x))


def test_other_layers_stay_peft_s():
    class Words(One):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(4, 6)

    model = peft.get_peft_model(Words(), peft.LoraConfig(r=2, target_modules=["layer", "words"]))
    shorten(model)
    assert type(layer(model)) is AdaptedLinear
    assert type(model.base_model.model.words) is peft.tuners.lora.Embedding
