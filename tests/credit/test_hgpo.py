"""HGPO; the numbers are worked by hand in the comments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from repro_rl.config import load_config
from repro_rl.credit import CREDIT, CreditSettings, gigpo_advantages, hgpo_advantages
from repro_rl.errors import ConfigError


def test_hgpo_by_hand():
    # One task, gamma 1. Returns-to-go: A 4 4, B 0 0, C 1.
    #   A: x y    B: z y    C: x
    # Level 1 (this state): x {A1 4, C1 1} mean 2.5: +1.5, -1.5; y {A2 4, B2 0} mean 2: +2, -2; z alone.
    # Level 2 (this state and the one before): (x y) and (z y), both alone: no part.
    rewards = [[0.0, 4.0], [0.0, 0.0], [1.0]]
    anchors = [["x", "y"], ["z", "y"], ["x"]]
    rows = hgpo_advantages(rewards, ["t"] * 3, anchors, gamma=1.0, normalize="mean")
    assert rows == [[1.5, 2.0], [0.0, -2.0], [-1.5]]


def test_hgpo_deeper_levels_weigh_more():
    # Three trajectories, last rewards 6, 0, 3, gamma 1; A and B walk x y, C walks w y.
    # Level 1, y: {6, 0, 3}, mean 3: +3, -3, 0. x: {6, 0}: +3, -3.   weight 2
    # Level 2, (x y): {6, 0}: +3, -3; (w y) alone.                       weight 3
    # A2 = (2 * 3 + 3 * 3) / 5 = 3, and C2 = 0 as its only level says 0.
    rewards = [[0.0, 6.0], [0.0, 0.0], [0.0, 3.0]]
    anchors = [["x", "y"], ["x", "y"], ["w", "y"]]
    rows = hgpo_advantages(rewards, ["t"] * 3, anchors, gamma=1.0, normalize="mean")
    np.testing.assert_allclose(rows, [[3.0, 3.0], [-3.0, -3.0], [0.0, 0.0]])
    # With last rewards 6, 0, 0 the levels differ: y mean 2: +4, -2, -2; (x y) as before.
    rewards[2][1] = 0.0
    rows = hgpo_advantages(rewards, ["t"] * 3, anchors, gamma=1.0, normalize="mean")
    assert rows[0][1] == pytest.approx((2 * 4 + 3 * 3) / 5)
    assert rows[1][1] == pytest.approx((2 * -2 + 3 * -3) / 5)
    assert rows[2][1] == pytest.approx(-2)
    flat = hgpo_advantages(rewards, ["t"] * 3, anchors, gamma=1.0, level_power=0.0, normalize="mean")
    assert flat[0][1] == pytest.approx((4 + 3) / 2)
    steep = hgpo_advantages(rewards, ["t"] * 3, anchors, gamma=1.0, level_power=2.0, normalize="mean")
    assert steep[0][1] == pytest.approx((4 * 4 + 9 * 3) / 13)


def test_hgpo_a_level_that_says_zero_takes_no_part():
    # y: {6, 0, 3, 3}, mean 3; (x y): {6, 0, 3}, mean 3; the third step is 0 on both, A2 is not diluted.
    # The fourth: level 1 says 0, level 2 alone.
    rewards = [[0.0, 6.0], [0.0, 0.0], [0.0, 3.0], [0.0, 3.0]]
    anchors = [["x", "y"], ["x", "y"], ["x", "y"], ["w", "y"]]
    rows = hgpo_advantages(rewards, ["t"] * 4, anchors, gamma=1.0, normalize="mean")
    assert [row[1] for row in rows] == [3.0, -3.0, 0.0, 0.0]


def test_hgpo_divides_by_the_population_deviation():
    # {6, 0}: mean 3, population standard deviation 3 (unbiased: 4.24).
    rows = hgpo_advantages([[6.0], [0.0]], ["t", "t"], [["x"], ["x"]], gamma=1.0)
    np.testing.assert_allclose(rows, [[1.0], [-1.0]], rtol=1e-5)


def test_hgpo_repeated_visits_and_tasks():
    # One trajectory that visits x twice is a group of its own visits; another task's x is another group.
    rows = hgpo_advantages([[0.0, 2.0], [7.0]], ["t", "u"], [["x", "x"], ["x"]], gamma=0.5, normalize="mean")
    # Returns-to-go 1 and 2 against their mean 1.5.
    assert rows == [[-0.5, 0.5], [0.0]]


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.floats(-9, 9)), max_size=6), min_size=1, max_size=6))
def test_hgpo_without_history_is_the_step_part_of_gigpo(rows):
    rewards = [[value for _, value in row] for row in rows]
    anchors = [[key for key, _ in row] for row in rows]
    groups = ["t"] * len(rows)
    ours = hgpo_advantages(rewards, groups, anchors, gamma=0.9, history=0, normalize="mean")
    both = gigpo_advantages(rewards, groups, anchors, gamma=0.9, omega=1.0, episode_returns=[0.0] * len(rows))
    assert [len(row) for row in ours] == [len(row) for row in rewards]
    for mine, theirs in zip(ours, both, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_hgpo_the_rule_takes_its_settings_from_the_method():
    config = load_config(None, ["method=hgpo", "method.history=1", "method.level_power=0", "method.gamma=1"])
    settings = config.method
    assert (settings.history, settings.level_power) == (1, 0.0)
    rewards, anchors = [[0.0, 6.0], [0.0, 0.0], [0.0, 0.0]], [["x", "y"], ["x", "y"], ["w", "y"]]
    rows = CREDIT.get("hgpo").function(rewards, ["t"] * 3, anchors, settings, [1.0, 2.0, 3.0])
    assert rows[0][1] == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": [["x"]]}, "1 in anchors"),
        ({"anchors": [["x", "y"], ["x"]]}, "trajectory 0 has 1 rewards and 2 anchors"),
        ({"history": -1}, "history"),
        ({"history": "2"}, "history is '2'; give 0 or more past states"),
        ({"history": 1.5}, "history is 1.5"),
        ({"gamma": "1"}, "gamma is '1'; it must lie between 0 and 1"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"level_power": "1"}, "level_power is '1'; it must be a finite number"),
        ({"groups": "tt"}, "groups is 'tt'; it must be a list"),
        ({"rewards": [1.0, 0.0]}, "rewards of trajectory 0 is '1.0'; it must be a list"),
        ({"normalize": "std"}, "normalize"),
        ({"rewards": [[float("inf")], [0.0]]}, "finite"),
    ],
)
def test_hgpo_names_bad_input(change, message):
    arguments = {"rewards": [[1.0], [0.0]], "groups": ["t", "t"], "anchors": [["x"], ["x"]], "gamma": 1.0}
    with pytest.raises(ConfigError, match=message):
        hgpo_advantages(**(arguments | change))  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="level_power"):
        CreditSettings(level_power=-1.0)
