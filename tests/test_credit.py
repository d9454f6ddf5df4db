"""Credit: composite reward, GRPO, GiGPO. The numbers are worked by hand in the comments."""

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro_rl.credit import (
    CREDIT,
    SOURCES,
    CreditSettings,
    RewardSettings,
    assign_credit,
    composite_rewards,
    gigpo_advantages,
    grpo_advantages,
    progress_series,
    reflection_advantages,
    reflection_reward,
    register_credit,
)
from repro_rl.errors import ConfigError, UnknownNameError
from repro_rl.types import Completion, Group, Reflection, Step, Trajectory

EMPTY = Completion((), (), np.zeros(0, dtype=np.float32), "", True)


def step(
    t: int, *, online: int | None = None, reward: float = 0.0, anchor: Hashable = "s", **kw: object
) -> Step:
    fields: dict[str, object] = {"action": "go", "defects": (), "valid": True, "truth": None} | kw
    return Step(
        t=t,
        observation="",
        brief="",
        anchor=anchor,
        prompt="",
        completion=EMPTY,
        online=online,
        env_reward=reward,
        **fields,  # type: ignore[arg-type]
    )


def episode(
    steps: list[Step],
    *,
    won: bool = False,
    score: float = 0.0,
    values: Sequence[int] | None = None,
    error: str | None = None,
) -> Trajectory:
    reflection = None if values is None else Reflection("", EMPTY, tuple(values), ())
    return Trajectory("task", 0, "goal", steps, won, score, False, reflection=reflection, error=error)


# --- progress series and composite reward


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


def test_a_source_that_miscounts_the_steps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES._items, "short", lambda trajectory: [1.0])
    with pytest.raises(ConfigError, match="'short' gave 1 values for the 2 steps"):
        progress_series(episode([step(1), step(2)]), "short")


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
    settings = RewardSettings(beta=2.0, alpha=0.5, boundary_coef=0.3)
    rows = composite_rewards(trajectory, settings, expects_online=True)
    # P = 0, .2, .5, 1 (P_T raised to 1). Gains .2, .3, .5, times beta 2 = .4, .6, 1.
    assert [row["shaping"] for row in rows] == pytest.approx([0.4, 0.6, 1.0])
    # q = .3, missing, 1: -.5 * |.3 - .2| = -.05; missing = -.5; -.5 * |1 - 1| = 0.
    assert [row["alignment"] for row in rows] == pytest.approx([-0.05, -0.5, 0.0])
    assert [row["env"] for row in rows] == [0.0, 0.0, 10.0]
    assert [row["format"] for row in rows] == [0.0, -0.1, 0.0]
    assert [row["invalid"] for row in rows] == [0.0, -0.1, 0.0]
    assert [row["boundary"] for row in rows] == [0.0, 0.0, 0.0]  # 100 at the last step of a success is right
    assert set(rows[0]) == {"env", "shaping", "alignment", "format", "boundary", "invalid"}

    before = RewardSettings(beta=2.0, alpha=0.5, align_to="before")
    rows = composite_rewards(trajectory, before, expects_online=False)
    # against P_(t-1) = 0, .2, .5: -.5 * .3 = -.15; missing but not asked for = 0; -.5 * |1 - .5| = -.25
    assert [row["alignment"] for row in rows] == pytest.approx([-0.15, 0.0, -0.25])

    trajectory.won = False
    rows = composite_rewards(trajectory, settings, expects_online=True)
    assert [row["boundary"] for row in rows] == [0.0, 0.0, -0.3]
    trajectory.reflection = None
    rows = composite_rewards(trajectory, settings, expects_online=True)
    assert all(row["shaping"] == 0.0 and row["alignment"] == 0.0 for row in rows)


def test_reward_settings_name_the_bad_field() -> None:
    with pytest.raises(ConfigError, match=r"method\.shaping.*did you mean 'retrospective'"):
        RewardSettings(shaping="retrospect")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"method\.beta is nan"):
        RewardSettings(beta=float("nan"))
    with pytest.raises(ConfigError, match=r"method\.gamma is 1\.5"):
        CreditSettings(gamma=1.5)


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


# --- GRPO


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
    with pytest.raises(ConfigError, match="2 returns and 1 group names"):
        grpo_advantages([1.0, 2.0], ["a"])
    with pytest.raises(ConfigError, match="value 1 is nan"):
        grpo_advantages([1.0, float("nan")], ["a", "a"])
    with pytest.raises(ConfigError, match="normalize"):
        grpo_advantages([1.0], ["a"], normalize="std")  # type: ignore[arg-type]


# --- GiGPO


def test_gigpo_by_hand() -> None:
    # One task, two rollouts. First: states x, y, win of 10 at step 2. Second: states x, x, z, nothing.
    rewards = [[0.0, 10.0], [0.0, 0.0, 0.0]]
    anchors = [["x", "y"], ["x", "x", "z"]]
    # Episode, baseline "steps": rows 10, 10, 0, 0, 0 -> mean 4: +6 and -4.
    # Step, gamma .5: returns-to-go 5, 10 | 0, 0, 0. State x holds 5, 0, 0 -> mean 5/3: 10/3, -5/3, -5/3.
    # y and z are alone: 0.
    result = gigpo_advantages(rewards, ["a", "a"], anchors, gamma=0.5, omega=2.0)
    assert result[0] == pytest.approx([6 + 20 / 3, 6.0])
    assert result[1] == pytest.approx([-4 - 10 / 3, -4 - 10 / 3, -4.0])
    # baseline "trajectories": 10 and 0 -> mean 5.
    result = gigpo_advantages(
        rewards, ["a", "a"], anchors, gamma=0.5, omega=0.0, episode_baseline="trajectories"
    )
    assert result == [[5.0, 5.0], [-5.0, -5.0, -5.0]]
    # mean_std. Episode rows: (2 * 36 + 3 * 16) / 4 = 30. State x: (100 + 25 + 25) / 9 / 2 = 150 / 18.
    result = gigpo_advantages(rewards, ["a", "a"], anchors, gamma=0.5, omega=1.0, normalize="mean_std")
    episode_scale, x_scale = 30**0.5 + 1e-6, (150 / 18) ** 0.5 + 1e-6
    assert result[0] == pytest.approx([6 / episode_scale + 10 / 3 / x_scale, 6 / episode_scale])
    assert result[1][2] == pytest.approx(-4 / episode_scale)


def test_gigpo_group_of_one_value() -> None:
    kwargs = {"gamma": 0.5, "omega": 1.0}
    # one trajectory of one step: exactly one value, so the raw return stays; its step part is 0
    assert gigpo_advantages([[7.0]], ["a"], [["x"]], **kwargs, normalize="mean_std") == [[7.0]]
    # one trajectory of two steps: two rows under "steps" (7 - 7), one value under "trajectories"
    assert gigpo_advantages([[0.0, 7.0]], ["a"], [["x", "y"]], **kwargs) == [[0.0, 0.0]]
    assert gigpo_advantages([[0.0, 7.0]], ["a"], [["x", "y"]], **kwargs, episode_baseline="trajectories") == [
        [7.0, 7.0]
    ]


def test_gigpo_groups_states_within_a_task_and_takes_given_returns() -> None:
    # the same state key in two tasks is two groups, so every step is alone; returns 1 and 3 are given
    assert gigpo_advantages(
        [[0.0], [0.0], [5.0]],
        ["a", "a", "b"],
        [["x"], ["y"], ["x"]],
        gamma=1.0,
        omega=1.0,
        episode_returns=[1.0, 3.0, 2.0],
    ) == [[-1.0], [1.0], [2.0]]


def test_gigpo_trajectory_without_steps_is_no_part_of_the_baseline() -> None:
    for baseline in ("steps", "trajectories"):
        assert gigpo_advantages(
            [[2.0], [], [4.0]], "aaa", [["x"], [], ["y"]], gamma=1.0, omega=1.0, episode_baseline=baseline
        ) == [[-1.0], [], [1.0]]
    assert gigpo_advantages([], [], [], gamma=1.0, omega=1.0) == []
    assert gigpo_advantages([[]], ["a"], [[]], gamma=1.0, omega=1.0) == [[]]


def test_gigpo_rejects_what_it_cannot_use() -> None:
    def call(
        rewards: object = ((1.0,),), groups: object = ("a",), anchors: object = (("x",),), **kw: object
    ) -> None:
        gigpo_advantages(rewards, groups, anchors, **({"gamma": 0.5, "omega": 1.0} | kw))  # type: ignore[arg-type]

    call()
    for match, kwargs in (
        ("1 trajectories in rewards but 2 in groups", {"groups": ("a", "b")}),
        ("but 0 in anchors", {"anchors": ()}),
        ("trajectory 0 has 1 rewards and 2 anchors", {"anchors": (("x", "y"),)}),
        ("but 3 in episode_returns", {"episode_returns": [1.0, 2.0, 3.0]}),
        ("gamma is 2", {"gamma": 2.0}),
        ("omega is inf", {"omega": float("inf")}),
        ("rewards: value 0 is nan", {"rewards": ((float("nan"),),)}),
        ("anchors must be hashable", {"anchors": (([1],),)}),
        ("episode_baseline", {"episode_baseline": "rows"}),
    ):
        with pytest.raises(ConfigError, match=match):
            call(**kwargs)


def plain_gigpo(rewards, groups, anchors, gamma, omega, normalize, baseline):  # type: ignore[no-untyped-def]
    """The definition, one step at a time."""

    def against(value, pool, lone):  # type: ignore[no-untyped-def]
        if len(pool) == 1:
            return value if lone else 0.0
        spread = float(np.std(pool, ddof=1)) + 1e-6 if normalize == "mean_std" else 1.0
        return (value - float(np.mean(pool))) / spread

    togo = [[sum(gamma**k * r for k, r in enumerate(row[t:])) for t in range(len(row))] for row in rewards]
    result = []
    for n, row in enumerate(rewards):
        mates = [m for m in range(len(rewards)) if groups[m] == groups[n]]
        pool = [
            sum(rewards[m]) for m in mates for _ in (rewards[m] if baseline == "steps" else rewards[m][:1])
        ]
        out = []
        for t in range(len(row)):
            same = [togo[m][u] for m in mates for u, key in enumerate(anchors[m]) if key == anchors[n][t]]
            out.append(against(sum(row), pool, True) + omega * against(togo[n][t], same, False))
        result.append(out)
    return result


STEP = st.tuples(st.sampled_from([0.0, -0.1, 1.0, 10.0, 0.37]), st.sampled_from("xyz"))
BATCH = st.lists(st.tuples(st.sampled_from("ab"), st.lists(STEP, min_size=1, max_size=5)), max_size=7)
OPTIONS = st.tuples(
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from(["mean", "mean_std"]),
    st.sampled_from(["steps", "trajectories"]),
)


def unpack(batch):  # type: ignore[no-untyped-def]
    return (
        [[reward for reward, _ in steps] for _, steps in batch],
        [group for group, _ in batch],
        [[key for _, key in steps] for _, steps in batch],
    )


def run(batch, options):  # type: ignore[no-untyped-def]
    gamma, omega, normalize, baseline = options
    return gigpo_advantages(
        *unpack(batch), gamma=gamma, omega=omega, normalize=normalize, episode_baseline=baseline
    )


@settings(deadline=None)
@given(BATCH, OPTIONS)
def test_gigpo_is_its_definition(batch, options) -> None:  # type: ignore[no-untyped-def]
    for got, want in zip(run(batch, options), plain_gigpo(*unpack(batch), *options), strict=True):
        assert got == pytest.approx(want, abs=1e-6)


@settings(deadline=None)
@given(BATCH, st.sampled_from([0.0, 0.5, 1.0]))
def test_gigpo_sums_to_zero_within_a_group(batch, gamma) -> None:  # type: ignore[no-untyped-def]
    result = run(batch, (gamma, 1.0, "mean", "steps"))
    for name in "ab":
        rows = [row for row, (group, _) in zip(result, batch, strict=True) if group == name]
        if sum(map(len, rows)) > 1:
            assert sum(map(sum, rows)) == pytest.approx(0.0, abs=1e-9)


@settings(deadline=None)
@given(BATCH, OPTIONS, st.randoms(use_true_random=False))
def test_gigpo_does_not_care_about_order(batch, options, random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(batch)))
    random.shuffle(order)
    direct, shuffled = run(batch, options), run([batch[n] for n in order], options)
    for row, n in zip(shuffled, order, strict=True):
        assert row == pytest.approx(direct[n], abs=1e-6)


@settings(deadline=None)
@given(BATCH, st.sampled_from([0.0, 0.1, 10.0]))
def test_gigpo_equal_rewards_have_no_step_part(batch, reward) -> None:  # type: ignore[no-untyped-def]
    # with gamma = 0 the return-to-go is the reward itself, the same everywhere
    same = [(group, [(reward, key) for _, key in steps]) for group, steps in batch]
    for normalize in ("mean", "mean_std"):
        with_steps, without = (run(same, (0.0, omega, normalize, "steps")) for omega in (3.0, 0.0))
        for left, right in zip(with_steps, without, strict=True):
            assert left == pytest.approx(right, abs=1e-8)


def test_gigpo_is_fast() -> None:
    rng = np.random.default_rng(0)
    rewards = rng.random((512, 15)).tolist()
    anchors = [[f"state {key}" for key in row] for row in rng.integers(0, 40, (512, 15))]
    groups = [f"task {n // 8}" for n in range(512)]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        gigpo_advantages(rewards, groups, anchors, gamma=0.95, omega=1.0, normalize="mean_std")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.15  # about 4 ms on one idle core; the bound allows for a busy one


# --- rules by name, and whole records


def test_registry() -> None:
    assert {"grpo", "gigpo"} <= set(CREDIT.names())
    rewards, anchors = [[0.0, 10.0], [4.0]], [["x", "y"], ["x"]]
    grpo, gigpo = CREDIT.get("grpo"), CREDIT.get("gigpo")
    assert grpo(rewards, ["a", "a"], anchors, CreditSettings(), None) == [[3.0, 3.0], [-3.0]]
    assert grpo(rewards, ["a", "a"], anchors, CreditSettings(), [1.0, 0.0]) == [[0.5, 0.5], [-0.5]]
    assert grpo([[], [2.0]], ["a", "a"], [[], ["x"]], CreditSettings(), None) == [[], [2.0]]
    settings = CreditSettings(gamma=0.5, omega=2.0, episode_baseline="trajectories")
    # x holds 0 + .5 * 10 = 5 and 4 -> +.5, -.5
    assert gigpo(rewards, ["a", "a"], anchors, settings, None) == [[3.0 + 1.0, 3.0], [-3.0 - 1.0]]
    with pytest.raises(UnknownNameError, match="did you mean 'gigpo'"):
        CREDIT.get("gipgo")


def two_rollouts() -> list[Group]:
    won = episode([step(1), step(2, reward=10.0)], won=True, score=1.0, values=(50, 80))
    lost = episode([step(1), step(2, valid=False)], values=(50, 10))
    return [Group("task", [won, lost])]


def test_assign_credit_keeps_shaping_out_of_the_episode_return() -> None:
    groups = two_rollouts()
    reward = RewardSettings(beta=1.0, alignment="none")
    assign_credit(groups, reward, "grpo", CreditSettings(), expects_online=False)
    # returns 10 and -.1 (invalid) -> mean 4.95
    assert [s.advantage for t in groups[0].trajectories for s in t.steps] == pytest.approx(
        [5.05] * 2 + [-5.05] * 2
    )
    assert groups[0].trajectories[0].steps[0].terms["shaping"] == pytest.approx(0.5)
    assign_credit(groups, reward, "grpo", CreditSettings(), expects_online=False, shaping_in_episode=True)
    # + P_T: 10 + 1 (anchored), -.1 + .1 -> mean 5.5
    assert [s.advantage for t in groups[0].trajectories for s in t.steps] == pytest.approx(
        [5.5] * 2 + [-5.5] * 2
    )


def test_assign_credit_gigpo_by_hand() -> None:
    groups = two_rollouts()
    for trajectory in groups[0].trajectories:
        for index, record in enumerate(trajectory.steps):
            record.anchor = ("state", index)
    reward = RewardSettings(beta=1.0, alpha=1.0, alignment="retrospective")
    # alignment: nothing said, asked for: -1 per step, in the step rewards only
    assign_credit(groups, reward, "gigpo", CreditSettings(gamma=0.5), expects_online=True)
    # step rewards won: .5 - 1 = -.5, 10 + .5 - 1 = 9.5; lost: .5 - 1 = -.5, -.4 - 1 - .1 = -1.5
    # returns-to-go won: 4.25, 9.5; lost: -1.25, -1.5. Per state: +-2.75, +-5.5. Episode: +-5.05.
    flat = [s.advantage for t in groups[0].trajectories for s in t.steps]
    assert flat == pytest.approx([7.8, 10.55, -7.8, -10.55])
    assign_credit(
        groups, reward, "gigpo", CreditSettings(gamma=0.5), expects_online=True, alignment_in_episode=True
    )
    assert [s.advantage for t in groups[0].trajectories for s in t.steps] == pytest.approx(
        flat
    )  # -2 for both


def test_excluded_terms_are_recorded_but_not_credited() -> None:
    groups = two_rollouts()
    reward = RewardSettings(shaping="none")
    assign_credit(
        groups,
        reward,
        "grpo",
        CreditSettings(),
        expects_online=True,
        alignment_in_episode=True,
        excluded=frozenset({"alignment", "invalid"}),
    )
    # without the invalid penalty the returns are 10 and 0
    assert [s.advantage for t in groups[0].trajectories for s in t.steps] == [5.0, 5.0, -5.0, -5.0]
    assert groups[0].trajectories[1].steps[1].terms["invalid"] == -0.1
    assert groups[0].trajectories[0].steps[0].terms["alignment"] == -0.5


def test_broken_episodes_and_repeated_tasks() -> None:
    groups = two_rollouts()
    broken = episode([step(1, reward=100.0)], error="environment died", values=(90,))
    groups[0].trajectories.append(broken)
    groups += two_rollouts()[:1]
    assign_credit(groups, RewardSettings(shaping="none"), "grpo", CreditSettings(), expects_online=False)
    assert broken.steps[0].advantage == 0.0
    assert groups[0].trajectories[0].steps[0].advantage == pytest.approx(5.05)
    reflection_advantages(groups)
    assert broken.reflection is not None
    assert broken.reflection.advantage == 0.0


def test_reflection_advantages() -> None:
    groups = two_rollouts()
    groups[0].trajectories.append(episode([step(1)]))
    reflection_advantages(groups)
    first, second, none = (trajectory.reflection for trajectory in groups[0].trajectories)
    assert none is None
    assert first is not None
    assert second is not None
    # 1 + .8 + 1 = 2.8 and 1 + 1 + 1 = 3 -> mean 2.9
    assert (first.advantage, second.advantage) == pytest.approx((-0.1, 0.1))
    assert sum(first.terms.values()) == pytest.approx(2.8)


def test_a_rule_of_your_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CREDIT, "_items", dict(CREDIT._items))

    @register_credit("constant")
    def constant(rewards, groups, anchors, settings, episode_returns):  # type: ignore[no-untyped-def]
        return [[1.0] * len(row) for row in rewards]

    @register_credit("short")
    def short(rewards, groups, anchors, settings, episode_returns):  # type: ignore[no-untyped-def]
        return [[1.0] for _ in rewards]

    groups = two_rollouts()
    assign_credit(groups, RewardSettings(), "constant", CreditSettings(), expects_online=False)
    assert {s.advantage for t in groups[0].trajectories for s in t.steps} == {1.0}
    with pytest.raises(ConfigError, match="credit rule 'short'"):
        assign_credit(groups, RewardSettings(), "short", CreditSettings(), expects_online=False)
    assert list(itertools.chain(CREDIT)) == CREDIT.names()
