"""Random draws of the generated data."""

from __future__ import annotations

from repro_rl.envs.draws import Draws


def test_draws_are_pinned() -> None:
    """The generated households and catalogues depend on these values."""
    draws = Draws("x")
    values = [draws.below(100) for _ in range(3)], draws.between(5, 7), draws.pick("abcdef")
    assert (*values, draws.sample(range(10), 3)) == ([63, 59, 48], 7, "c", [4, 5, 3])
    assert Draws(7).shuffled(range(5)) == [1, 0, 3, 2, 4]
