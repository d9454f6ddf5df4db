"""Statistics over a handful of seeds; the numbers are worked by hand in the comments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import permutation_test

from repro_rl.errors import DataError
from repro_rl.study.paired import crossed_bootstrap, holm, interquartile_mean, sign_flip_p, smallest_p

small = st.lists(st.floats(-1, 1), min_size=1, max_size=7)


def test_interquartile_mean_by_hand():
    # 5 values: a quarter is 1.25, so the weights are 0, .75, 1, .75, 0 of 2.5: (.75*2 + 3 + .75*7) / 2.5
    assert interquartile_mean([100.0, 1.0, 3.0, 2.0, 7.0]) == pytest.approx((1.5 + 3 + 5.25) / 2.5)
    assert interquartile_mean([9.0, 1.0, 4.0, 2.0]) == pytest.approx(3.0)  # 4 values: the middle two
    # 3 values: .75 off each end: .25, 1, .25 of 1.5
    assert interquartile_mean([0.0, 3.0, 9.0]) == pytest.approx((3 + 0.25 * 9) / 1.5)
    assert interquartile_mean([5.0]) == 5.0
    assert math.isnan(interquartile_mean([]))


@given(small)
def test_interquartile_mean_ignores_the_scale_of_the_outer_quarters(values):
    assert min(values) - 1e-12 <= interquartile_mean(values) <= max(values) + 1e-12
    if len(values) >= 4:
        stretched = sorted(values)
        stretched[0] -= 50
        stretched[-1] += 50
        assert interquartile_mean(stretched) == pytest.approx(interquartile_mean(values), abs=1e-9)


def test_sign_flip_by_hand():
    # 1, 2, 4: the sums over signs are +-7, +-5, +-3, +-1. |7| is reached by 2 of 8; that is the least.
    assert sign_flip_p([1.0, 2.0, 4.0]) == 0.25 == smallest_p(3)
    # -1, 2, 4: sum 5, and 4 of 8 are at least 5.
    assert sign_flip_p([-1.0, 2.0, 4.0]) == 0.5
    assert sign_flip_p([0.0, 0.0]) == 1.0
    assert sign_flip_p([0.1] * 5) == smallest_p(5) == 0.0625
    assert sign_flip_p([]) is None
    assert sign_flip_p([1.0] * 21) is None


@given(small)
def test_sign_flip_counts_every_pattern(values):
    data = np.array(values)
    patterns = np.array(list(itertools.product([1, -1], repeat=len(values))))
    expected = np.mean(np.abs(patterns @ data) >= abs(data.sum()) - 1e-9 * max(1.0, np.abs(data).sum()))
    assert sign_flip_p(values) == pytest.approx(expected)


def test_sign_flip_agrees_with_scipy():
    values = np.random.default_rng(3).normal(0.3, 1, 8)
    expected = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(values.tolist()) == pytest.approx(expected.pvalue)


def test_holm_by_hand():
    # Sorted .01 .02 .04: times 3, 2, 1 give .03 .04 .04; the order of the input comes back.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    # A larger p-value is never adjusted below a smaller one.
    assert holm([0.02, 0.021]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_crossed_bootstrap_by_hand():
    # Two seeds, 1 and 3, on many equal tasks: a resample's mean is 1, 2 or 3, with probability 1/4, 1/2, 1/4.
    table = np.array([[1.0] * 40, [3.0] * 40])
    assert crossed_bootstrap(table)[:3] == (2.0, 1.0, 3.0)
    assert crossed_bootstrap(table, confidence=0.4)[:3] == pytest.approx((2.0, 2.0, 2.0))
    # Tasks vary, seeds do not: as resampling tasks alone.
    tasks = np.random.default_rng(0).normal(0, 1, 400)
    spread = crossed_bootstrap(np.array([tasks, tasks]))
    half = 1.96 * tasks.std() / 20
    assert spread.high - spread.low == pytest.approx(2 * half, rel=0.1)


def test_crossed_bootstrap_is_seeded_and_refuses_nan():
    table = np.random.default_rng(1).normal(0, 1, (5, 30))
    assert crossed_bootstrap(table) == crossed_bootstrap(table)
    assert crossed_bootstrap(table).mean == pytest.approx(table.mean())
    assert math.isnan(crossed_bootstrap(table[:1]).low)
    table[0, 0] = math.nan
    with pytest.raises(DataError, match="finite"):
        crossed_bootstrap(table)
