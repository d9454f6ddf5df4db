"""The comparisons of the reward."""

from __future__ import annotations

from repro_rl.envs.webshop.reward import normal_color, similar


def test_colours_and_fuzzy_matches() -> None:
    assert normal_color("dark blue") == "blue"  # the first of the list, which is by alphabet
    assert normal_color("rustic oak") == "rust"
    assert normal_color("10 inch") == "10 inch"
    assert similar("rubber sole", "Rubber-Sole")
    assert similar("sole", "rubber sole"), "a subset of the words is a match"
    assert not similar("leather", "rubber sole")
    assert not similar("", "")
