"""Judgements pooled by state, worked by hand, and as a property."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_rl.credit.assign import assign_credit
from repro_rl.credit.pool import pooled_series
from repro_rl.credit.reward import RewardSettings
from repro_rl.credit.rules import CreditSettings
from repro_rl.errors import ConfigError
from repro_rl.types import Completion, Group, Reflection, Step, Trajectory

EMPTY = Completion((), (), np.zeros(0, dtype=np.float32), "", True)


def episode(
    states: list[str | None], values: list[int] | None, *, won: bool = False, error: str | None = None
) -> Trajectory:
    """States s_0..s_T; None where a step's state is not known."""
    steps = [
        Step(t + 1, "", "", before, "", EMPTY, "go", None, (), True, 0.0, None, reached=after)
        for t, (before, after) in enumerate(itertools.pairwise(states))
    ]
    reflection = None if values is None else Reflection("", EMPTY, tuple(values), ())
    return Trajectory("task", 0, "", steps, won, 0.0, False, reflection=reflection, error=error)


def test_a_state_gets_the_mean_of_all_its_visits() -> None:
    lost = episode(["s", "a", "b", "a"], [30, 50, 60])
    won = episode(["s", "a", "c"], [60, 70], won=True)
    first, second = pooled_series(Group("task", [lost, won]), "clip")
    assert first == pytest.approx([0, 0.5, 0.5, 0.5])  # a: (.3 + .6 + .6) / 3; b: .5
    assert second == pytest.approx([0, 0.5, 1.0])  # the win is anchored at 1 before pooling


def test_start_is_zero_unknown_states_keep_their_own_and_errors_lend_nothing() -> None:
    back = episode(["s", "a", "s", None], [40, 40, 20])
    broken = episode(["s", "a"], [90], error="lost")
    silent = episode(["s", "a"], None)
    first, second, third = pooled_series(Group("task", [back, broken, silent]), "clip")
    assert first == pytest.approx([0, 0.4, 0.0, 0.2])
    assert second == pytest.approx([0, 0.4])
    assert third is None


def test_shaping_and_alignment_use_the_pooled_values() -> None:
    lost = episode(["s", "a", "b"], [20, 40])
    other = episode(["s", "a", "b"], [60, 20])
    for trajectory in (lost, other):
        for step in trajectory.steps:
            step.online = 40
    settings = RewardSettings(beta=10, alpha=1)
    groups = [Group("task", [lost, other])]
    assign_credit(groups, settings, "gigpo", CreditSettings(), expects_online=True, pool="state")
    assert [s.terms["shaping"] for s in lost.steps] == pytest.approx([4.0, -1.0])  # a .4, b .3
    assert [s.terms["shaping"] for s in other.steps] == pytest.approx([4.0, -1.0])
    assert [s.terms["alignment"] for s in lost.steps] == pytest.approx([0.0, -0.1])
    assign_credit(groups, settings, "gigpo", CreditSettings(), expects_online=True)
    assert [s.terms["shaping"] for s in lost.steps] == pytest.approx([2.0, 2.0])
    with pytest.raises(ConfigError, match="pool"):
        assign_credit(groups, settings, "gigpo", CreditSettings(), expects_online=True, pool="task")  # type: ignore[arg-type]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("sabc"), st.integers(0, 100)), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    )
)
def test_pooled_progress_is_a_function_of_the_state(visits: list[list[tuple[str, int]]]) -> None:
    group = Group("task", [episode(["s", *(s for s, _ in row)], [v for _, v in row]) for row in visits])
    found: dict[str, float] = {"s": 0.0}
    for row, series in zip(visits, pooled_series(group, "clip"), strict=True):
        assert series is not None
        assert series[0] == 0.0
        for (state, _), value in zip(row, series[1:], strict=True):
            assert found.setdefault(state, value) == value
            assert 0 <= value <= 0.99
