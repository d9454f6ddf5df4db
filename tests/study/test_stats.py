import math

import numpy as np
import pytest
from scipy.stats import binomtest

from repro_rl.errors import DataError
from repro_rl.study.stats import bootstrap_interval, mean_interval, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (7, 7), (1, 2), (70, 500), (305, 500)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_agrees_with_scipy(successes, trials, confidence):
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand():
    # z = 1.96, 5 of 10: centre .5, half = 1.96 / (1 + .38416) * sqrt(.025 + .009604) = .2634
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2), (0, -1)])
def test_wilson_refuses_impossible_counts(successes, trials):
    with pytest.raises(DataError, match="impossible"):
        wilson(successes, trials)


def test_mean_interval_by_hand():
    # mean 2, sd 1, n 3: half = 4.3027 / sqrt(3)
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert interval.size == 3


@pytest.mark.parametrize("function", [mean_interval, bootstrap_interval])
def test_too_few_values_have_no_interval(function):
    one = function([0.5])
    assert (one.mean, one.size) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert all(math.isnan(x) for x in function([])[:3])


def test_bootstrap_is_seeded_and_close_to_the_normal_interval():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400).tolist()
    first = bootstrap_interval(values, resamples=2000, seed=4)
    assert first == bootstrap_interval(values, resamples=2000, seed=4)
    assert first != bootstrap_interval(values, resamples=2000, seed=5)
    exact = mean_interval(values)
    assert first[:3] == pytest.approx(exact[:3], abs=0.03)
    assert bootstrap_interval(values, np.median, resamples=200).mean == pytest.approx(np.median(values))


def test_bootstrap_without_spread():
    assert bootstrap_interval([0.25] * 4) == (0.25, 0.25, 0.25, 4)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="nan"):
        mean_interval([1.0, math.nan])
    with pytest.raises(DataError, match="confidence"):
        wilson(1, 2, 95)
