"""The statistic behind every group-relative rule; the numbers are worked by hand in the comments."""

from __future__ import annotations

import numpy as np
import pytest

from repro_rl.credit.baseline import check_choice, finite_array, normalise, number_keys
from repro_rl.errors import ConfigError


def test_counts_weigh_values() -> None:
    # Group 0: 10 twice and 4 once, mean 8: +2, -4. Variance (2 * 4 + 16) / 2 = 12. Group 1: 3 once.
    values, ids = np.array([10.0, 4.0, 3.0]), np.array([0, 0, 1])
    counts = np.array([2.0, 1.0, 1.0])
    assert normalise(values, ids, counts, "mean", lone_keeps_value=True).tolist() == [2.0, -4.0, 3.0]
    assert normalise(values, ids, counts, "mean", lone_keeps_value=False).tolist() == [2.0, -4.0, 0.0]
    scale = 12**0.5 + 1e-6
    scaled = normalise(values, ids, counts, "mean_std", lone_keeps_value=True)
    assert scaled == pytest.approx([2 / scale, -4 / scale, 3.0])


def test_a_count_of_zero_is_measured_without_being_part_of_the_group() -> None:
    values, counts = np.array([9.0, 1.0, 3.0]), np.array([0.0, 1.0, 1.0])
    result = normalise(values, np.zeros(3, dtype=np.intp), counts, "mean", lone_keeps_value=True)
    assert result.tolist() == [7.0, -1.0, 1.0]


def test_no_values() -> None:
    empty = np.zeros(0)
    ids = np.zeros(0, dtype=np.intp)
    assert normalise(empty, ids, empty, "mean_std", lone_keeps_value=True).shape == (0,)


def test_equal_keys_get_equal_numbers() -> None:
    assert number_keys("keys", ["b", ("a", 1), "b", 2.0, 2]).tolist() == [0, 1, 0, 2, 2]
    with pytest.raises(ConfigError, match="keys must be hashable"):
        number_keys("keys", [{}])  # type: ignore[list-item]


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(ConfigError, match="returns: value 2 is -inf"):
        finite_array("returns", [0.0, 1.0, float("-inf")])
    for values, message in (
        (["1", "2"], "returns: every value must be a number .*'1' is text"),
        ("12", "'1' is text"),
        ([1.0, b"2"], "b'2' is text"),
        ([[1.0], [2.0]], "returns: every value must be a number; got lists of 1"),
        (np.zeros((2, 3)), "got lists of 3"),
        ([1.0, [2.0]], "returns: every value must be a number"),
        ([{}], "returns: every value must be a number"),
        (1.0, "returns: every value must be a number"),
    ):
        with pytest.raises(ConfigError, match=message):
            finite_array("returns", values)  # type: ignore[arg-type]
    assert finite_array("wins", [True, np.float32(0.5), 2]).tolist() == [1.0, 0.5, 2.0]
    with pytest.raises(ConfigError, match="anchor is 'clop'; did you mean 'clip'"):
        check_choice("anchor", "clop", ("none", "clip", "outcome"))
