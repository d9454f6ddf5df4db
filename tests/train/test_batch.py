"""Merged rows and batches: the same gradient as from every copy."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from repro_rl.losses.ppo_clip import ppo_clip_loss
from repro_rl.losses.tokens import LossTokens
from repro_rl.train.batch import Collation, PaddedInputs, TreeInputs, merge, split_rows
from repro_rl.types import TokenKind
from support.toy import (
    CPU,
    SCALES,
    Toy,
    gradient,
    grouped_samples,
    logp_of,
    our_loss,
    reference_loss,
    sample_of,
)


def test_merge_is_exact():
    model, samples = grouped_samples()
    rows = merge(samples)
    assert len(samples) == 120
    assert len(rows) == 24
    assert {row.count for row in rows} == {5}
    ratios = []
    for sample in samples:
        logp = logp_of(model, sample.ids).detach()
        ratios += [
            float(logp[i - 1, sample.ids[i]] - sample.logprob[i]) for i in np.flatnonzero(sample.trained)
        ]
    assert min(ratios) < math.log(0.8)
    assert max(ratios) > math.log(1.2)
    expected = gradient(model, reference_loss(model, samples, SCALES, clip=0.2))
    (terms,) = our_loss(model, rows, SCALES)
    actual = gradient(model, terms.total)
    assert float(expected.abs().max()) > 1e-3
    assert torch.allclose(actual, expected, atol=1e-7, rtol=1e-6)
    # and so are the copies one by one
    lone = [row for sample in samples for row in merge([sample])]
    (apart,) = our_loss(model, lone, SCALES)
    assert float(apart.total.detach()) == pytest.approx(float(terms.total.detach()), rel=1e-6)
    for name in ("policy_loss", "kl", "entropy", "mismatch", "tokens"):
        assert getattr(apart, name) == pytest.approx(getattr(terms, name), rel=1e-6), name
    assert apart.clipped == terms.clipped > 0


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_merge_is_exact_with_kl_and_entropy(temperature):
    model, samples = grouped_samples(1, copies=3)
    reference = Toy(seed=8)
    options = {"kl_coef": 0.3, "entropy_coef": 0.2, "temperature": temperature}
    expected = gradient(
        model, reference_loss(model, samples, SCALES, clip=0.2, reference=reference, **options)
    )
    (terms,) = our_loss(model, merge(samples), SCALES, kl="exact", reference=reference, **options)
    assert torch.allclose(gradient(model, terms.total), expected, atol=1e-7, rtol=1e-5)


def test_merge_leaves_the_samples_alone_and_keeps_what_differs_apart():
    one = sample_of([1, 2, 3], 1, [1.0, -2.0], -1.0)
    two = sample_of([1, 2, 3], 1, [-3.0, 4.0], -1.0)
    later = sample_of([1, 2, 3], 2, [7.0], -1.0)
    other = sample_of([1, 2, 3], 1, [1.0, 1.0], -1.0, kind=TokenKind.REFLECT)
    hole = sample_of([1, 2, 3], 1, [1.0, 0.0], -1.0)  # same first trained token, another mask
    hole.kind[2] = TokenKind.CONTEXT
    rows = merge([one, two, later, other, hole, two])
    act, reflect = TokenKind.ACT, TokenKind.REFLECT
    assert [(row.count, row.kind.tolist()) for row in rows] == [
        (3, [0, act, act]),
        (1, [0, 0, act]),
        (1, [0, reflect, reflect]),
        (1, [0, act, 0]),
    ]
    assert rows[3].trained.tolist() == [False, True, False]
    assert rows[0].positive.tolist() == [0, 1, 8]
    assert rows[0].negative.tolist() == [0, -6, -2]
    assert rows[0].logprob.tolist() == [0, -1, -1]
    assert one.advantage.tolist() == [0, 1, -2]
    assert one.logprob.tolist() == [0, -1, -1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=6),
    st.floats(-3, 3),
    st.sampled_from([0.1, 0.2, 0.5]),
)
def test_sums_of_both_signs_are_enough(advantages, shift, clip):
    """What merging rests on: the loss of two tokens, one with each sum, is that of every copy."""
    ratio = math.exp(shift)
    plain = sum(min(ratio * a, min(max(ratio, 1 - clip), 1 + clip) * a) for a in advantages)
    positive, negative = sum(a for a in advantages if a >= 0), sum(a for a in advantages if a < 0)
    zeros = torch.zeros(2, dtype=torch.float64)
    sums = torch.tensor([positive, negative], dtype=torch.float64)
    tokens = LossTokens(zeros + shift, zeros, sums, zeros.long())
    merged = ppo_clip_loss(tokens, clip_low=clip, clip_high=clip, dual_clip=None).sum()
    assert -float(merged) == pytest.approx(plain, abs=1e-9)


def test_micro_batches_do_not_change_the_gradient():
    model, samples = grouped_samples(2)
    rows = merge(samples)
    (whole,) = our_loss(model, rows, SCALES)
    expected = gradient(model, whole.total)
    for cells in (1, 13, 40):
        parts = our_loss(model, rows, SCALES, max_cells=cells)
        assert len(parts) > 3
        assert torch.allclose(gradient(model, sum(p.total for p in parts)), expected, atol=1e-9)
        assert sum(p.tokens for p in parts) == whole.tokens
    for chunk in split_rows(rows, 13):
        assert len(chunk) == 1 or len(chunk) * max(len(row.ids) for row in chunk) <= 13
    assert sum(map(len, split_rows(rows, 13))) == len(rows)


def collated(as_tree=False):
    """Two rows of different lengths, one acting, one a reflection."""
    rows = merge(
        [
            sample_of([1, 2, 3, 4], 3, 1.0, -1.0),
            sample_of([5, 6, 1], 2, -2.0, -0.5, TokenKind.REFLECT),
            sample_of([5, 6, 1], 2, -2.0, -0.5, TokenKind.REFLECT),
        ]
    )
    return Collation(9, CPU, as_tree).collate(rows, {TokenKind.ACT: 0.5, TokenKind.REFLECT: 0.25})


def test_padded_rows():
    batch = collated()
    assert isinstance(batch.inputs, PaddedInputs)
    assert batch.inputs.ids.tolist() == [[1, 2, 3, 4], [5, 6, 1, 9]]
    assert batch.inputs.columns.tolist() == [1, 2]  # the last ones that anything is predicted from
    assert batch.inputs.row.tolist() == [0, 1]
    assert batch.inputs.columns[batch.inputs.column].tolist() == [2, 1]
    assert batch.reference is None


@pytest.mark.parametrize("as_tree", [False, True])
def test_targets_are_the_trained_tokens(as_tree):
    targets = collated(as_tree).targets
    assert targets.token.tolist() == [4, 1]
    assert targets.weight.tolist() == [1, 2]  # copies of the row
    assert targets.positive.tolist() == [1, 0]
    assert targets.negative.tolist() == [0, -4]  # summed over copies
    assert targets.logprob.tolist() == [-1, -0.5]  # their mean
    assert targets.scale.tolist() == [0.5, 0.25]


def test_a_tree_ends_with_what_predicts_the_last_token():
    inputs = collated(as_tree=True).inputs
    assert isinstance(inputs, TreeInputs)
    assert sorted(inputs.tree.token.tolist()) == [1, 2, 3, 5, 6]  # neither 4, nor the second 1, nor padding
    assert inputs.tree.token[inputs.nodes[inputs.index]].tolist() == [3, 6]


@pytest.mark.parametrize("as_tree", [False, True])
def test_a_batch_is_frozen(as_tree):
    batch = collated(as_tree)
    for part, name in (
        (batch, "reference"),
        (batch, "targets"),
        (batch.targets, "positive"),
        (batch.inputs, "index" if as_tree else "row"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, None)
    other = replace(batch, reference=torch.zeros(2))
    assert batch.reference is None
    assert other.targets is batch.targets


def test_trees_are_cut_by_their_nodes():
    """Rows that begin alike share nodes, so more of them fit than padded rows would."""
    rows = merge([sample_of([1, 2, 3, 4, last], 4, 1.0, -1.0) for last in range(1, 7)])
    padded, trees = Collation(0, CPU).split(rows, 12), Collation(0, CPU, as_tree=True).split(rows, 12)
    assert [len(chunk) for chunk in padded] == [2, 2, 2]
    assert [len(chunk) for chunk in trees] == [6]  # 4 shared nodes and 6 ends
    assert [len(chunk) for chunk in Collation(0, CPU, as_tree=True).split(rows, 1)] == [1] * 6
