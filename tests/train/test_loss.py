"""The policy objective, its KL term and the imitation loss, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from repro_rl.config import KlSection
from repro_rl.errors import ConfigError
from repro_rl.train.batch import Collation, Row, merge
from repro_rl.train.loss import LossSettings, imitation_loss, kl_terms, policy_loss, reference_values
from repro_rl.types import TokenKind
from support.toy import CPU, Toy, gradient, logp_of, our_loss, sample_of


def test_ppo_by_hand():
    """One token, p = (.5, .25, .25) under the policy; what it pays for each ratio and sign."""
    model = Toy()
    with torch.no_grad():
        model.table.fill_(-1e9)
        model.table[..., :3] = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()

    def value(old, advantage):
        row = merge([sample_of([1, 2, 0], 2, advantage, math.log(old))])
        (terms,) = our_loss(model, row, {TokenKind.ACT: 1.0})
        slope = gradient(model, terms.total)[1, 2, 0]
        return float(terms.total.detach()), float(slope), terms

    # d log p0 / d logit0 = 1 - p0 = .5, so the slope is -A r / 2 inside, 0 where clipped
    total, slope, terms = value(0.5, 2.0)  # ratio 1
    assert (total, slope) == pytest.approx((-2.0, -1.0), rel=1e-6)
    assert terms.entropy == pytest.approx(1.5 * math.log(2))
    assert (terms.tokens, terms.clipped) == (1, 0)
    total, slope, terms = value(0.4, 2.0)  # ratio 1.25 > 1.2, A > 0: clipped
    assert (total, slope) == pytest.approx((-2.4, 0.0), rel=1e-6)
    assert terms.clipped == 1
    assert terms.mismatch == pytest.approx(math.log(1.25), rel=1e-6)
    total, slope, terms = value(0.4, -2.0)  # ratio 1.25, A < 0: not clipped
    assert (total, slope) == pytest.approx((2.5, 1.25), rel=1e-6)
    assert terms.clipped == 0
    total, slope, _ = value(1.0, 2.0)  # ratio .5, A > 0: not clipped
    assert (total, slope) == pytest.approx((-1.0, -0.5), rel=1e-6)
    total, slope, terms = value(1.0, -2.0)  # ratio .5 < .8, A < 0: clipped
    assert (total, slope) == pytest.approx((1.6, 0.0), rel=1e-6)
    assert terms.clipped == 1


def test_imitation_loss_by_hand():
    model = Toy()
    zeros, none = np.zeros(4, np.float32), np.zeros(4, np.int32)
    kind = np.array([0, 0, TokenKind.ACT, TokenKind.ACT], np.int8)
    row = Row(np.array([1, 2, 3, 4]), kind, zeros, zeros, none, none, zeros, 2)
    batch = Collation(0, CPU).collate([row], {TokenKind.ACT: 0.25})
    logp = logp_of(model, row.ids)
    expected = -0.25 * 2 * float((logp[1, 3] + logp[2, 4]).detach())
    assert float(imitation_loss(model, batch).detach()) == pytest.approx(expected)


def test_kl_forms_by_hand():
    policy = torch.tensor([[[0.5, 0.25, 0.25]]]).log()
    reference = torch.tensor([[[0.25, 0.5, 0.25]]]).log()
    # .5 ln 2 + .25 ln .5 + 0
    assert float(kl_terms("exact", policy, None, reference, 10)) == pytest.approx(0.25 * math.log(2))
    chosen, other = policy[..., 0], reference[..., 0]  # the log-ratio reference - policy is -ln 2
    assert float(kl_terms("k1", policy, chosen, other, 10)) == pytest.approx(math.log(2))
    assert float(kl_terms("k2", policy, chosen, other, 10)) == pytest.approx(0.5 * math.log(2) ** 2)
    assert float(kl_terms("k3", policy, chosen, other, 10)) == pytest.approx(0.5 - 1 + math.log(2))
    assert float(kl_terms("k1", policy, chosen, other, 0.1)) == pytest.approx(0.1)
    far = torch.tensor([[50.0]])
    assert float(kl_terms("k3", policy, torch.zeros(1, 1), far, 2.0)) == pytest.approx(math.exp(2) - 3)
    with pytest.raises(ConfigError, match="Unknown KL form 'k4'"):
        kl_terms("k4", policy, chosen, other, 10)


def test_k3_is_at_most_10_whatever_the_clamp():
    """As in verl: at a log-ratio of -8 its value would be 2,972, and its slope -2,980."""
    chosen = torch.tensor([-8.0, -2.0], requires_grad=True)
    value = kl_terms("k3", chosen, chosen, torch.zeros(2), 10)
    assert value.tolist() == pytest.approx([10.0, math.exp(2) - 3])
    value.sum().backward()
    assert chosen.grad.tolist() == pytest.approx([0.0, 1 - math.exp(2)])


def test_k1_and_k3_may_have_the_gradient_of_k2():
    other = torch.tensor([math.log(0.5)])
    for form, value in (("k1+", math.log(0.5)), ("k3+", 2 - 1 - math.log(2))):  # the log-ratio is ln 2
        chosen = torch.tensor([math.log(0.25)], requires_grad=True)
        found = kl_terms(form, chosen, chosen, other, 10)
        assert float(found.detach()) == pytest.approx(value)
        found.sum().backward()
        assert float(chosen.grad) == pytest.approx(math.log(0.5))  # of k2: log pi - log pi_ref


def test_exact_kl_and_the_expectations_of_k1_and_k3():
    generator = torch.Generator().manual_seed(0)
    policy, reference = (  # near enough for k3 to stay below its bound
        torch.log_softmax(0.5 * torch.randn(3, 4, 9, generator=generator, dtype=torch.float64), -1)
        for _ in range(2)
    )
    exact = kl_terms("exact", policy, None, reference, 10)
    for b in range(3):
        for t in range(4):
            p, q = policy[b, t].exp(), reference[b, t].exp()
            brute = sum(float(p[v]) * math.log(float(p[v]) / float(q[v])) for v in range(9))
            assert float(exact[b, t]) == pytest.approx(brute)
    assert bool((exact >= 0).all())
    for form in ("k1", "k3"):
        mean = torch.zeros_like(exact)
        for v in range(9):
            value = kl_terms(form, policy, policy[..., v], reference[..., v], 100.0)
            mean += policy[..., v].exp() * value
        assert torch.allclose(mean, exact)


def test_a_kl_term_without_its_reference_is_an_error():
    zeros, none = np.zeros(2, np.float32), np.zeros(2, np.int32)
    row = Row(np.array([1, 2]), np.array([0, TokenKind.ACT], np.int8), zeros, zeros, none, none, zeros, 1)
    batch = Collation(0, CPU).collate([row], {TokenKind.ACT: 1.0})
    with pytest.raises(ConfigError, match="KL term of form 'k3', but the batch has no reference"):
        policy_loss(Toy(), batch, LossSettings(0.2, KlSection(form="k3", coef=0.1), 0.0, 1.0))
    for section in (KlSection(form="none"), KlSection(coef=0.0)):
        assert policy_loss(Toy(), batch, LossSettings(0.2, section, 0.0, 1.0)).kl == 0.0
    with pytest.raises(
        ConfigError, match=r"Unknown KL form 'exct'; known: exact, k1, k2, k3, k1\+, k3\+, none"
    ):
        reference_values(Toy(), batch, "exct", 1.0)
