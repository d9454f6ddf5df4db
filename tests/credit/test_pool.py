"""Judgements pooled by state, worked by hand, and as a property."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st
from pydantic import ValidationError

from repro_rl.credit import CreditSettings, assign_credit
from repro_rl.credit.pool import pooled_series
from repro_rl.types import Group
from support.credit_cases import judged_walk


def test_a_state_gets_the_mean_of_all_its_visits() -> None:
    lost = judged_walk(["s", "a", "b", "a"], [30, 50, 60])
    won = judged_walk(["s", "a", "c"], [60, 70], won=True)
    first, second = pooled_series(Group("task", [lost, won]), "clip")
    assert first == pytest.approx([0, 0.5, 0.5, 0.5])  # a: (.3 + .6 + .6) / 3; b: .5
    assert second == pytest.approx([0, 0.5, 1.0])  # the win is anchored at 1 before pooling


def test_start_is_zero_unknown_states_keep_their_own_and_errors_lend_nothing() -> None:
    back = judged_walk(["s", "a", "s", None], [40, 40, 20])
    broken = judged_walk(["s", "a"], [90], error="lost")
    silent = judged_walk(["s", "a"], None)
    first, second, third = pooled_series(Group("task", [back, broken, silent]), "clip")
    assert first == pytest.approx([0, 0.4, 0.0, 0.2])
    assert second == pytest.approx([0, 0.4])
    assert third is None


def test_shaping_and_alignment_use_the_pooled_values() -> None:
    lost = judged_walk(["s", "a", "b"], [20, 40])
    other = judged_walk(["s", "a", "b"], [60, 20])
    for trajectory in (lost, other):
        for step in trajectory.steps:
            step.online = 40
    settings = CreditSettings(shaping="retrospective", alignment="retrospective", beta=10, alpha=1)
    groups = [Group("task", [lost, other])]
    assign_credit(groups, settings.model_copy(update={"judge_pool": "state"}))
    assert [s.terms["shaping"] for s in lost.steps] == pytest.approx([4.0, -1.0])  # a .4, b .3
    assert [s.terms["shaping"] for s in other.steps] == pytest.approx([4.0, -1.0])
    assert [s.terms["alignment"] for s in lost.steps] == pytest.approx([0.0, -0.1])
    assign_credit(groups, settings)
    assert [s.terms["shaping"] for s in lost.steps] == pytest.approx([2.0, 2.0])
    with pytest.raises(ValidationError, match="judge_pool"):
        CreditSettings(judge_pool="task")  # type: ignore[arg-type]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("sabc"), st.integers(0, 100)), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    )
)
@example([[("a", 99)] * 6])
def test_pooled_progress_is_a_function_of_the_state(visits: list[list[tuple[str, int]]]) -> None:
    group = Group("task", [judged_walk(["s", *(s for s, _ in row)], [v for _, v in row]) for row in visits])
    found: dict[str, float] = {"s": 0.0}
    for row, series in zip(visits, pooled_series(group, "clip"), strict=True):
        assert series is not None
        assert series[0] == 0.0
        for (state, _), value in zip(row, series[1:], strict=True):
            assert found.setdefault(state, value) == value
            assert 0 <= value <= 0.99 + 1e-12  # a mean of six times .99 is rounded upwards
