"""Which reflections are trained on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from repro_rl.credit import ReflectionChoice
from repro_rl.random_streams import name_key

SHARES = st.floats(0, 1, exclude_min=True)


def by_definition(share: float, seed: int, iteration: int, group: int, size: int) -> set[int]:
    """The first entries of a permutation that seed, iteration and group name."""
    if share == 1:
        return set(range(size))
    rng = np.random.default_rng(name_key(seed, "reflections", iteration, group))
    return {int(i) for i in rng.permutation(size)[: max(1, round(share * size))]}


@given(SHARES, st.integers(0, 2**32), st.integers(0, 999), st.integers(0, 99), st.integers(1, 16))
def test_the_choice_is_a_seeded_permutation(share, seed, iteration, group, size) -> None:  # type: ignore[no-untyped-def]
    chosen = ReflectionChoice(share, seed).chosen(iteration, group, size)
    assert chosen == by_definition(share, seed, iteration, group, size)


def test_the_draws_of_older_versions_stand() -> None:
    # Written down from the first release: a run that goes on must choose as it did before.
    choice = ReflectionChoice(0.25, seed=7)
    assert [sorted(choice.chosen(3, group, 8)) for group in range(4)] == [[3, 7], [0, 5], [1, 5], [1, 6]]


@given(SHARES, st.integers(0, 99), st.integers(1, 16))
def test_every_group_has_the_same_number_and_at_least_one(share: float, seed: int, size: int) -> None:
    choice = ReflectionChoice(share, seed)
    sizes = {len(choice.chosen(iteration, group, size)) for iteration in range(3) for group in range(3)}
    assert sizes == {max(1, round(share * size))}


def test_all_and_none() -> None:
    assert ReflectionChoice(1.0, 0).chosen(5, 2, 4) == frozenset(range(4))
    assert ReflectionChoice(0.0, 0).chosen(5, 2, 4) == frozenset()


@pytest.mark.parametrize("changed", [(8, 3, 0), (7, 4, 0), (7, 3, 1)])
def test_seed_iteration_and_group_each_change_the_draw(changed: tuple[int, int, int]) -> None:
    seed, iteration, group = changed
    first = [ReflectionChoice(0.5, 7).chosen(3, 0, 64)]
    assert first != [ReflectionChoice(0.5, seed).chosen(iteration, group, 64)]
