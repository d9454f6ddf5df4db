"""What a state is, progress from the group's own graph, raw progress, long answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from repro_rl.credit import CreditSettings, RewardSettings, assign_credit, composite_rewards
from repro_rl.credit.pool import pooled_series
from repro_rl.credit.sources import GroupSource, group_series, progress_series, register_progress
from repro_rl.errors import ConfigError
from repro_rl.types import Completion, Group, Trajectory
from support.credit_cases import advantages, episode, step


def walk(path: str, *, won: bool = False, seen: str | None = None, error: str | None = None) -> Trajectory:
    """An episode through the states of ``path``; ``seen``: what the agent saw in each of them."""
    seen = seen or path
    steps = [
        step(t, anchor=path[t - 1], reached=path[t], reward=10.0 * (won and t == len(path) - 1))
        for t in range(1, len(path))
    ]
    steps = [replace(one, observation=seen[i]) for i, one in enumerate(steps)]
    trajectory = episode(steps, won=won, score=float(won), error=error)
    trajectory.final_observation = seen[-1]
    return trajectory


LINE = Group("task", [walk("ABCD", won=True), walk("ABAX"), walk("CD", won=True, error="lost")])


def test_the_graph_says_how_much_nearer_success_is() -> None:
    # A is 3 from success, B 2, C 1; X leads nowhere: 4. The failed episode has no part.
    rows = group_series(LINE, "graph", RewardSettings())
    assert rows[0] == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])
    assert rows[1] == pytest.approx([0.0, 1 / 3, 0.0, 0.0])
    assert rows[2] is None
    lost = Group("task", [walk("AB"), walk("AC")])
    assert group_series(lost, "graph", RewardSettings()) == [[0.0, 0.0]] * 2


def test_state_values_are_counted_over_visits() -> None:
    rows = group_series(LINE, "graph_value", RewardSettings(value_gamma=0.5))
    a, b, c = 0.125 / 3, 0.25 / 2, 0.5
    assert rows[0] == pytest.approx([0.0, (b - a) / (1 - a), (c - a) / (1 - a), 1.0])
    assert rows[1] == pytest.approx([0.0, (b - a) / (1 - a), 0.0, 0.0])


def test_observations_or_hidden_states() -> None:
    """B and C look alike; only as observations are they one state."""
    groups = [Group("task", [walk("ABX", won=True, seen="abx"), walk("ACX", seen="abx")])]
    assign_credit(groups, CreditSettings(credit="gigpo", gamma=0.5, omega=1.0))
    assert advantages(groups) == pytest.approx([5 + 2.5, 5.0, -5 - 2.5, -5.0])
    assign_credit(groups, CreditSettings(credit="gigpo", gamma=0.5, omega=1.0, anchor_key="observation"))
    assert advantages(groups) == pytest.approx([5 + 2.5, 5 + 5.0, -5 - 2.5, -5 - 5.0])


def test_judgements_are_pooled_by_what_a_state_is() -> None:
    first, second = walk("ABX", seen="abx"), walk("ACX", seen="abx")
    for trajectory, values in ((first, (20, 40)), (second, (60, 80))):
        trajectory.reflection = episode([], values=values).reflection
    group = Group("task", [first, second])
    assert pooled_series(group, "none") == [[0, 0.2, pytest.approx(0.6)], [0, 0.6, pytest.approx(0.6)]]
    assert pooled_series(group, "none", "observation")[0] == pytest.approx([0, 0.4, 0.6])


def test_raw_progress_beside_its_gains() -> None:
    trajectory = episode([step(1, online=40), step(2, online=10)])
    gains = composite_rewards(trajectory, RewardSettings(shaping="online", beta=2.0))
    raw = composite_rewards(trajectory, RewardSettings(shaping="online", beta=2.0, shaping_form="raw"))
    assert [row["shaping"] for row in gains] == pytest.approx([0.8, -0.6])
    assert [row["shaping"] for row in raw] == pytest.approx([0.8, 0.2])


def test_progress_advantage_is_the_gain_of_each_step() -> None:
    trajectory = walk("ABC")
    for one, own, other in zip(trajectory.steps, ([-1.0, -3.0], [-2.0]), ([-2.0, -4.0], [-1.5]), strict=True):
        logs = np.array(own, np.float32)
        one.completion = Completion((1,), tuple(range(len(own))), logs, "", True)
        one.completion.scored["reference"] = np.array(other, np.float32)
    rows = composite_rewards_of(trajectory, RewardSettings(shaping="progress_advantage", beta=2.0))
    assert rows == pytest.approx([2.0, -1.0])
    del trajectory.steps[0].completion.scored["reference"]
    with pytest.raises(ConfigError, match="needs the reference's log-probs"):
        composite_rewards_of(trajectory, RewardSettings(shaping="progress_advantage"))


def composite_rewards_of(trajectory: Trajectory, settings: RewardSettings) -> list[float]:
    series = group_series(Group("task", [trajectory]), settings.shaping, settings)[0]
    rows = composite_rewards(trajectory, settings, {settings.shaping: series})
    return [row["shaping"] for row in rows]


def test_a_long_answer_costs_in_step_and_episode() -> None:
    settings = CreditSettings(credit="grpo", overlong={"factor": 1.0, "max_length": 8, "buffer": 4})
    groups = [Group("task", [walk("AB"), walk("AB")])]
    long = Completion((), tuple(range(6)), np.zeros(6, np.float32), "", True)
    groups[0].trajectories[0].steps[0].completion = long
    assign_credit(groups, settings)
    assert [t.steps[0].terms["overlong"] for t in groups[0].trajectories] == [-0.5, 0.0]
    assert advantages(groups) == [-0.25, 0.25]
    assign_credit(groups, CreditSettings(credit="grpo"))
    assert "overlong" not in groups[0].trajectories[0].steps[0].terms


def test_a_group_source_of_your_own() -> None:
    register_progress("all-alike")(
        GroupSource(lambda group, how: [[0.5] * t.length for t in group.trajectories])
    )
    assert group_series(LINE, "all-alike", RewardSettings())[1] == [0.0, 0.5, 0.5, 0.5]
    with pytest.raises(ConfigError, match="needs all rollouts of a task; use group_series"):
        progress_series(LINE.trajectories[0], "all-alike")
    register_progress("short")(GroupSource(lambda group, how: []))
    with pytest.raises(ConfigError, match="'short' gave 0 series for the 3 rollouts of task"):
        group_series(LINE, "short", RewardSettings())
    register_progress("wide")(GroupSource(lambda group, how: [[2.0] * t.length for t in group.trajectories]))
    with pytest.raises(ConfigError, match=r"'wide' gave 2\.0 at step 1 of task; progress is a fraction"):
        group_series(LINE, "wide", RewardSettings())


def test_every_rule_credits_records() -> None:
    """Through ``assign_credit``, with a failed episode beside; hcapo has its own test of scoring."""
    for rule in (
        "graphgpo",
        "g2po",
        "gagpo",
        "pace",
        "proxmo",
        "maxrl",
        "dr_grpo",
        "reinforce_pp",
        "mt_grpo",
    ):
        groups = [Group("task", [walk("ABCD", won=True), walk("ABAX"), walk("AB", error="lost")])]
        assign_credit(groups, CreditSettings(credit=rule))
        assert any(advantages(groups)), rule
        assert groups[0].trajectories[2].steps[0].advantage == 0.0
    judged = CreditSettings(credit="g2po", value_source="linear")
    groups = [Group("task", [walk("ABCD", won=True), walk("ABAX")])]
    assign_credit(groups, judged)
    assert any(advantages(groups))
    unscored = walk("AB")
    unscored.steps[0].completion = Completion((), (1,), np.zeros(1, np.float32), "", True)
    with pytest.raises(ConfigError, match="reads hindsight log-probs"):
        assign_credit([Group("task", [unscored])], CreditSettings(credit="hcapo"))
