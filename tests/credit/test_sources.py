"""Progress series by name, and what the known outcome does to them."""

from __future__ import annotations

import pytest

from repro_rl.credit import (
    SOURCES,
    advantages,
    kept_groups,
    overlong_penalty,
    progress_series,
    register_progress,
)
from repro_rl.errors import ConfigError
from repro_rl.types import Trajectory
from support.credit_cases import episode, step


def test_retrospective_series_and_its_anchors() -> None:
    steps = [step(1), step(2), step(3)]
    won = episode(steps, won=True, score=1.0, values=(20, 100, 70))
    assert progress_series(won, "retrospective", anchor="none") == [0.0, 0.2, 1.0, 0.7]
    assert progress_series(won, "retrospective", anchor="clip") == [0.0, 0.2, 1.0, 1.0]
    assert progress_series(won, "retrospective", anchor="outcome") == [0.0, 0.2, 1.0, 1.0]
    lost = episode(steps, score=0.25, values=(20, 100, 70))
    assert progress_series(lost, "retrospective", anchor="none") == [0.0, 0.2, 1.0, 0.7]
    assert progress_series(lost, "retrospective", anchor="clip") == [0.0, 0.2, 0.99, 0.7]
    assert progress_series(lost, "retrospective", anchor="outcome") == [0.0, 0.2, 1.0, 0.25]
    assert progress_series(episode(steps), "retrospective") is None
    assert progress_series(episode(steps, values=(1, 2)), "retrospective") is None


def test_other_series() -> None:
    steps = [
        step(1, truth=0.5),
        step(2, online=40, truth=0.25),
        step(3, truth=1.0),
        step(4, online=90, truth=1.0),
    ]
    assert progress_series(episode(steps), "online") == [0.0, 0.0, 0.4, 0.4, 0.9]  # missing: carry the last
    assert progress_series(episode([step(1), step(2)]), "online") is None
    assert progress_series(episode(steps), "oracle") == [0.0, 0.5, 0.25, 1.0, 1.0]
    assert progress_series(episode([*steps, step(5)]), "oracle") is None
    assert progress_series(episode(steps, won=True), "linear") == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert progress_series(episode(steps), "linear") == [0.0] * 5
    assert progress_series(episode([], won=True, values=()), "retrospective") == [0.0]
    assert progress_series(episode([], won=True), "linear") == [0.0]
    with pytest.raises(ConfigError, match="did you mean 'oracle'"):
        progress_series(episode(steps), "oracel")


def test_progress_advantage_by_hand() -> None:
    """Log-ratios of the tokens of a step: 1 and -.5, then 0."""
    given = {"log_prob": [[-1.0, -3.0], [-0.5]], "ref_log_prob": [[-2.0, -2.5], [-0.5]]}
    for how, first in {"mean": 0.25, "sum": 0.5, "last": -0.5, "min": -0.5, "max": 1.0}.items():
        got = advantages("progress_advantage", {"tokens": how}, **given)
        assert got["step_advantages"] == pytest.approx([first, 0.0]), how


def test_dapo_s_penalty_and_its_groups_by_hand() -> None:
    lengths = (4, 6, 8, 9)
    assert [overlong_penalty(n, 8, 4, 1.0) for n in lengths] == pytest.approx([0.0, -0.5, -1.0, -1.0])
    assert [overlong_penalty(n, 8, 0, 0.5) for n in (8, 9)] == pytest.approx([0.0, -0.5])
    assert kept_groups(list("aabbc"), [0.0, 1.0, 2.0, 2.0, 5.0]) == {"a": True, "b": False, "c": True}


def test_a_source_that_miscounts_the_steps_is_named() -> None:
    with SOURCES.isolated():
        register_progress("short")(lambda trajectory: [1.0])
        with pytest.raises(ConfigError, match="'short' gave 1 values for the 2 steps"):
            progress_series(episode([step(1), step(2)]), "short")


def test_a_source_that_fails_is_named() -> None:
    with SOURCES.isolated():
        register_progress("broken")(lambda trajectory: [1 / 0])
        with pytest.raises(ConfigError, match="progress source 'broken' failed: ZeroDivisionError: "):
            progress_series(episode([step(1)]), "broken")


def test_a_source_of_your_own_is_not_anchored() -> None:
    with SOURCES.isolated():

        @register_progress("half")
        def half(trajectory: Trajectory) -> list[float]:
            return [0.5] * len(trajectory.steps)

        assert progress_series(episode([step(1), step(2)], won=True), "half") == [0.0, 0.5, 0.5]
    with pytest.raises(ConfigError, match="progress source is 'half'"):
        progress_series(episode([step(1)]), "half")


@pytest.mark.parametrize("value", [50.0, -0.1, float("nan"), None, "0.5"])
def test_a_source_that_gives_other_than_fractions_is_named(value) -> None:  # type: ignore[no-untyped-def]
    with SOURCES.isolated():
        register_progress("percent")(lambda trajectory: [0.5, value])
        with pytest.raises(
            ConfigError, match=f"'percent' gave {value!r} at step 2 of .*fraction from 0 to 1"
        ):
            progress_series(episode([step(1), step(2)], won=True), "percent")
