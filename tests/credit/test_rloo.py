"""RLOO; the numbers are worked by hand in the comments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from repro_rl.credit import advantages, rloo_advantages
from repro_rl.errors import ConfigError


def test_rloo_by_hand():
    # group a: 10, 0, 2. Others' means: (0 + 2) / 2 = 1, (10 + 2) / 2 = 6, (10 + 0) / 2 = 5.
    # group b: 4 and 8 against each other. c is alone and keeps its return.
    returns, groups = [10.0, 4.0, 0.0, 8.0, 2.0, 3.0], ["a", "b", "a", "b", "a", "c"]
    assert rloo_advantages(returns, groups) == [9.0, -4.0, -6.0, 4.0, -3.0, 3.0]
    assert rloo_advantages([], []) == []


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=9))
def test_rloo_is_the_scaled_deviation_from_the_mean(returns):
    n = len(returns)
    expected = n / (n - 1) * (np.array(returns) - np.mean(returns))
    np.testing.assert_allclose(rloo_advantages(returns, [0] * n), expected, atol=1e-9)


def test_rloo_the_rule_repeats_the_trajectory_on_its_steps():
    batch = {"groups": ["a", "a", "a"], "rewards": [[1.0, 2.0], [], [5.0]]}
    # The empty trajectory is no part of the baseline: 3 against 5.
    assert advantages("rloo", **batch)["advantages"] == [[-2.0, -2.0], [], [2.0]]
    # Given episode returns replace the sums.
    returns = [10.0, 99.0, 0.0]
    assert advantages("rloo", **batch, episode_returns=returns)["advantages"] == [[10.0, 10.0], [], [-10.0]]


@pytest.mark.parametrize(("returns", "groups"), [([1.0], []), ([float("nan")], ["a"])])
def test_rloo_names_bad_input(returns, groups):
    with pytest.raises(ConfigError, match="returns"):
        rloo_advantages(returns, groups)
