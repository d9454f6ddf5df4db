"""Guided answers in the loss: distributions over what was allowed, and nothing given is trained."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro_rl.config import KlSection
from repro_rl.rollout.samples import TrainedPart, guided_target, make_sample
from repro_rl.train.batch import Collation, merge, single_row
from repro_rl.train.loss import LossSettings, imitation_loss, policy_loss, reference_values
from repro_rl.train.mismatch import Correction
from repro_rl.train.rank_rows import merge_rows, pack, unpack
from repro_rl.types import Completion, Sample, TokenKind
from support.toy import CPU, Toy, gradient, logp_of

ONE = {TokenKind.REFLECT: 1.0}


def completion(allowed, ids, logprobs=None):
    values = np.zeros(len(ids), np.float32) if logprobs is None else np.asarray(logprobs, np.float32)
    return Completion((1, 2), tuple(ids), values, "", True, allowed=tuple(allowed))


def sample(allowed, ids, advantage, logprobs=None) -> Sample:
    return make_sample([TrainedPart(completion(allowed, ids, logprobs), advantage, TokenKind.REFLECT)], 0)


def on_policy(model, allowed, ids):
    """The log-probs that a sampler reports: of each token among those allowed, 0 where there is one."""
    logp = logp_of(model, (1, 2, *ids)).detach()
    values = []
    for at, (token, choices) in enumerate(zip(ids, allowed, strict=True)):
        row = torch.log_softmax(logp[at + 1][list(choices)], -1)
        values.append(float(row[choices.index(token)]))
    return values


def test_only_sampled_tokens_are_trained():
    one = sample([(3,), (4, 5), (6,), (4, 5, 6)], [3, 5, 6, 4], 2.0)
    assert one.kind.tolist() == [0, 0, 0, 2, 0, 2]
    assert one.advantage.tolist() == [0, 0, 0, 2, 0, 2]
    assert one.allowed == {3: (4, 5), 5: (4, 5, 6)}
    target = guided_target((1, 2), (3, 5, 6, 4), [(3,), (4, 5), (6,), (4, 5, 6)], TokenKind.REFLECT)
    assert (target.kind.tolist(), target.allowed) == (one.kind.tolist(), one.allowed)
    assert target.ids.tolist() == [1, 2, 3, 5, 6, 4]


def test_two_tokens_by_hand():
    """p = (.6, .3, .1) over three ids, the first two allowed: q = (2/3, 1/3). The third gets no gradient.

    d log q0 / d logits = (1 - 2/3, -1/3, 0), so the gradient of -A log q0 at ratio 1 is -A (1/3, -1/3, 0).
    """
    model = Toy()
    with torch.no_grad():
        model.table.fill_(-1e9)
        model.table[..., :3] = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64).log()
    one = sample([(0, 1)], [0], 2.0, [math.log(2 / 3)])
    batch = Collation(0, CPU).collate(merge([one]), ONE)
    terms = policy_loss(model, batch, LossSettings(0.2, KlSection(form="none"), 0.0, 1.0))
    assert float(terms.total.detach()) == pytest.approx(-2.0, rel=1e-6)
    assert terms.mismatch == pytest.approx(0, abs=1e-6)
    assert terms.entropy == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    slope = gradient(model, terms.total)[1, 2]
    np.testing.assert_allclose(slope, [-2 / 3, 2 / 3, 0, 0, 0, 0, 0], atol=1e-6)
    # The log-prob among all ids would have raised the share of the allowed ones too: -A (.4, -.3, -.1).
    free = sample([tuple(range(7))], [0], 2.0, [math.log(0.6)])
    terms = policy_loss(
        model,
        Collation(0, CPU).collate(merge([free]), ONE),
        LossSettings(0.2, KlSection(form="none"), 0.0, 1.0),
    )
    np.testing.assert_allclose(gradient(model, terms.total)[1, 2, :3], [-0.8, 0.6, 0.2], atol=1e-6)


def test_the_expected_gradient_is_that_of_the_guided_policy():
    """E_q[A grad log q] summed over the draws equals the gradient of E_q[A], worked without samples."""
    model, reward = Toy(seed=4), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    choices = (2, 4, 5)
    q = torch.log_softmax(logp_of(model, (1, 2))[1][list(choices)], -1).exp()
    expected = gradient(model, -(q * reward).sum())
    total = torch.zeros_like(expected)
    for index, token in enumerate(choices):
        one = sample([choices], [token], float(reward[index]), on_policy(model, [choices], [token]))
        batch = Collation(0, CPU).collate(merge([one]), ONE)
        terms = policy_loss(model, batch, LossSettings(0.2, KlSection(form="none"), 0.0, 1.0))
        total += float(q[index].detach()) * gradient(model, terms.total)
    np.testing.assert_allclose(total, expected, atol=1e-6)


ALLOWED = [(3,), (4, 5), (6,), (1, 4, 5, 6), (0,)]
IDS = [3, 5, 6, 4, 0]


@pytest.mark.parametrize("form", ["exact", "k1", "k2", "k3"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_ratio_kl_and_entropy_are_those_among_the_choices(form, temperature):
    model, other = Toy(seed=1), Toy(seed=2)
    logp, ref = (logp_of(each, (1, 2, *IDS), temperature).detach() for each in (model, other))
    kl = entropy = 0.0
    values = np.zeros(5)
    for at in (1, 3):
        rows = [torch.log_softmax(each[at + 1][list(ALLOWED[at])], -1) for each in (logp, ref)]
        token = ALLOWED[at].index(IDS[at])
        values[at] = rows[0][token]
        entropy -= float((rows[0].exp() * rows[0]).sum())
        ratio = float(rows[1][token] - rows[0][token])
        kl += {
            "exact": float((rows[0].exp() * (rows[0] - rows[1])).sum()),
            "k1": -ratio,
            "k2": ratio**2 / 2,
            "k3": math.exp(ratio) - 1 - ratio,
        }[form]
    one = sample(ALLOWED, IDS, 1.5, values)
    batch = Collation(0, CPU).collate(merge([one]), ONE)
    batch = replace(batch, reference=reference_values(other, batch, form, temperature).detach())
    section = KlSection(form=form, coef=0.3, clamp=10.0)
    terms = policy_loss(model, batch, LossSettings(0.2, section, 0.1, temperature))
    assert (terms.tokens, terms.clipped) == (2, 0)
    assert terms.kl == pytest.approx(kl, rel=1e-5)
    assert terms.entropy == pytest.approx(entropy, rel=1e-5)
    assert terms.mismatch == pytest.approx(0, abs=1e-6)
    assert float(terms.total.detach()) == pytest.approx(-2 * 1.5 + 0.3 * kl - 0.1 * entropy, rel=1e-5)


def test_free_and_guided_tokens_share_a_batch():
    model = Toy(seed=3)
    free = make_sample(
        [TrainedPart(Completion((1, 2), (3, 4), np.zeros(2, np.float32), "", True), 1.0, TokenKind.ACT)], 0
    )
    guided = sample(ALLOWED, IDS, 1.0)
    scales = {TokenKind.ACT: 0.5, TokenKind.REFLECT: 0.25}
    settings = LossSettings(0.2, KlSection(form="none"), 0.0, 1.0)
    both = policy_loss(model, Collation(0, CPU).collate(merge([free, guided]), scales), settings)
    parts = [
        policy_loss(model, Collation(0, CPU).collate(merge([x]), scales), settings) for x in (free, guided)
    ]
    assert float(both.total.detach()) == pytest.approx(sum(float(part.total.detach()) for part in parts))
    assert both.entropy == pytest.approx(sum(part.entropy for part in parts))


def test_imitation_is_of_the_guided_policy():
    model = Toy(seed=5)
    target = guided_target((1, 2), tuple(IDS), ALLOWED, TokenKind.REFLECT)
    batch = Collation(0, CPU).collate([single_row(target)], {TokenKind.REFLECT: 0.5})
    expected = -0.5 * sum(on_policy(model, ALLOWED, IDS))
    assert float(imitation_loss(model, batch).detach()) == pytest.approx(expected)


def test_the_correction_compares_the_same_log_probs():
    model = Toy(seed=6)
    one = sample(ALLOWED, IDS, 1.0, on_policy(model, ALLOWED, IDS))
    batch = Collation(0, CPU).collate(merge([one]), ONE)
    _, figures = Correction(2.0).apply(model, [[batch]], 1.0, torch.no_grad)
    assert figures["update/mismatch_max"] == pytest.approx(0, abs=1e-6)
    assert figures["update/importance_mean"] == pytest.approx(1, abs=1e-6)


def test_rows_keep_what_was_allowed():
    one, two = sample(ALLOWED, IDS, 1.0), sample(ALLOWED, IDS, -1.0)
    narrower = sample([*ALLOWED[:3], (4, 5), (0,)], IDS, 1.0)
    rows = merge([one, two, narrower])
    assert [(row.count, row.allowed[5]) for row in rows] == [(2, (1, 4, 5, 6)), (1, (4, 5))]
    again = merge_rows(unpack(pack(row)) for row in (*rows, *merge([one])))
    assert [(row.count, row.allowed) for row in again] == [(3, rows[0].allowed), (1, rows[1].allowed)]
