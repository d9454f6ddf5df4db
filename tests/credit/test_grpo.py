"""GRPO; the numbers are worked by hand in the comments."""

from __future__ import annotations

import pytest

from repro_rl.credit import grpo_advantages
from repro_rl.errors import ConfigError


def test_grpo_by_hand() -> None:
    # group a: 10, 0, 2 -> mean 4; deviations 6, -4, -2. Group b has one return, which stays raw.
    groups = ["a", "b", "a", "a"]
    assert grpo_advantages([10.0, 3.0, 0.0, 2.0], groups) == pytest.approx([6.0, 3.0, -4.0, -2.0])
    # unbiased variance (36 + 16 + 4) / 2 = 28
    scale = 28**0.5 + 1e-6
    expected = [6 / scale, 3.0, -4 / scale, -2 / scale]
    assert grpo_advantages([10.0, 3.0, 0.0, 2.0], groups, normalize="mean_std") == pytest.approx(expected)
    assert grpo_advantages([], []) == []
    assert grpo_advantages([1.0, 1.0], ["a", "a"], normalize="mean_std") == [0.0, 0.0]


def test_grpo_rejects_what_it_cannot_use() -> None:
    with pytest.raises(ConfigError, match=r"grpo_advantages: groups is 'ab'; it must be a list"):
        grpo_advantages([1.0, 2.0], "ab")
    with pytest.raises(ConfigError, match="'1' is text"):
        grpo_advantages(["1", "2"], ["a", "a"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="2 returns and 1 group names"):
        grpo_advantages([1.0, 2.0], ["a"])
    with pytest.raises(ConfigError, match="value 1 is nan"):
        grpo_advantages([1.0, float("nan")], ["a", "a"])
    with pytest.raises(ConfigError, match="normalize"):
        grpo_advantages([1.0], ["a"], normalize="std")  # type: ignore[arg-type]
