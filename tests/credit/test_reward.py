"""The composite reward and the reward of the reflection; the numbers are worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from repro_rl.credit import RewardSettings, composite_rewards, reflection_reward
from repro_rl.credit.reward import REFLECTION_TERMS, TERMS
from support.credit_cases import episode, step


def test_composite_rewards_by_hand() -> None:
    trajectory = episode(
        [
            step(1, online=30),
            step(2, online=None, defects=("no_progress",), valid=False),
            step(3, online=100, reward=10.0),
        ],
        won=True,
        score=1.0,
        values=(20, 50, 90),
    )
    settings = RewardSettings(
        shaping="retrospective",
        alignment="retrospective",
        beta=2.0,
        alpha=0.5,
        format_coef=0.1,
        boundary_coef=0.3,
    )
    rows = composite_rewards(trajectory, settings)
    # P = 0, .2, .5, 1 (P_T raised to 1). Gains .2, .3, .5, times beta 2 = .4, .6, 1.
    assert [row["shaping"] for row in rows] == pytest.approx([0.4, 0.6, 1.0])
    # q = .3, missing, 1: -.5 * |.3 - .2| = -.05; missing = -.5; -.5 * |1 - 1| = 0.
    assert [row["alignment"] for row in rows] == pytest.approx([-0.05, -0.5, 0.0])
    assert [row["env"] for row in rows] == [0.0, 0.0, 10.0]
    assert [row["format"] for row in rows] == [0.0, -0.1, 0.0]
    assert [row["invalid"] for row in rows] == [0.0, -0.1, 0.0]
    assert [row["boundary"] for row in rows] == [0.0, 0.0, 0.0]  # 100 at the last step of a success is right
    assert list(rows[0]) == list(TERMS) == ["env", "shaping", "alignment", "format", "boundary", "invalid"]

    before = settings.model_copy(update={"align_to": "before", "progress": False})
    rows = composite_rewards(trajectory, before)
    # against P_(t-1) = 0, .2, .5: -.5 * .3 = -.15; missing but not asked for = 0; -.5 * |1 - .5| = -.25
    assert [row["alignment"] for row in rows] == pytest.approx([-0.15, 0.0, -0.25])

    trajectory.won = False
    rows = composite_rewards(trajectory, settings)
    assert [row["boundary"] for row in rows] == [0.0, 0.0, -0.3]
    trajectory.reflection = None
    rows = composite_rewards(trajectory, settings)
    assert all(row["shaping"] == 0.0 and row["alignment"] == 0.0 for row in rows)


def test_a_missing_estimate_earns_nothing() -> None:
    """Estimates 90, none, none, 60: as gains .9, 0, 0, -.3; raw .9, 0, 0, .6."""
    trajectory = episode([step(1, online=90), step(2), step(3), step(4, online=60)])
    for form, expected in (("gain", [0.9, 0.0, 0.0, -0.3]), ("raw", [0.9, 0.0, 0.0, 0.6])):
        settings = RewardSettings(shaping="online", shaping_form=form, beta=1.0)
        rows = composite_rewards(trajectory, settings)
        assert [row["shaping"] for row in rows] == pytest.approx(expected)
    # Other sources have a value at every step, reported or not.
    judged = episode([step(1), step(2)], values=(20, 50))
    rows = composite_rewards(judged, RewardSettings(shaping="retrospective", shaping_form="raw"))
    assert [row["shaping"] for row in rows] == pytest.approx([0.2, 0.5])


def test_a_goal_that_is_reported_too_early_costs_also_in_a_success() -> None:
    trajectory = episode([step(1, online=100), step(2), step(3, online=100)], won=True, score=1.0)
    rows = composite_rewards(trajectory, RewardSettings(boundary_coef=0.3))
    assert [row["boundary"] for row in rows] == [-0.3, 0.0, 0.0]


@pytest.mark.parametrize(
    ("won", "score", "values", "expected"),
    [
        (True, 1.0, (50, 80), {"format": 1.0, "anchor": 0.8, "boundary": 1.0}),
        (True, 1.0, (100, 100), {"format": 1.0, "anchor": 1.0, "boundary": 0.0}),
        (False, 0.0, (50, 80), {"format": 1.0, "anchor": 1.0, "boundary": 1.0}),
        (False, 0.0, (50, 100), {"format": 1.0, "anchor": 0.0, "boundary": 1.0}),
        (False, 0.6, (50, 80), {"format": 1.0, "anchor": 0.8, "boundary": 1.0}),  # 1 - |.8 - .6|
        (False, 0.6, (50, 100), {"format": 1.0, "anchor": 0.0, "boundary": 1.0}),
        (False, 0.0, None, {"format": 0.0, "anchor": 0.0, "boundary": 0.0}),
        (False, 0.0, (50,), {"format": 0.0, "anchor": 0.0, "boundary": 0.0}),
    ],
)
def test_reflection_reward(
    won: bool, score: float, values: Sequence[int] | None, expected: dict[str, float]
) -> None:
    trajectory = episode([step(1), step(2)], won=won, score=score, values=values)
    assert reflection_reward(trajectory) == pytest.approx(expected)
    assert list(expected) == list(REFLECTION_TERMS)
