"""GiGPO, by hand and against its definition one step at a time."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.credit import gigpo_advantages
from repro_rl.errors import ConfigError
from support.counting import count_calls


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
            [[2.0], [], [4.0]],
            ["a"] * 3,
            [["x"], [], ["y"]],
            gamma=1.0,
            omega=1.0,
            episode_baseline=baseline,
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
        ("gamma is '0.5'; it must lie between 0 and 1", {"gamma": "0.5"}),
        ("omega is '1'; it must be a finite number", {"omega": "1"}),
        ("rewards: every value must be a number .*'1' is text", {"rewards": (("1",),)}),
        ("rewards is '5.0'; it must be a list", {"rewards": 5.0}),
        ("rewards of trajectory 0 is '1.0'; it must be a list", {"rewards": (1.0,)}),
        ("anchors of trajectory 0 is 'x'; it must be a list", {"anchors": ("x",)}),
        ("groups is 'a'; it must be a list", {"groups": "a"}),
        ("episode_returns: every value must be a number; got lists of 1", {"episode_returns": [[1.0]]}),
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


def test_gigpo_work_grows_with_the_number_of_steps_and_not_faster() -> None:
    rng = np.random.default_rng(0)

    def work(count: int) -> int:
        rewards = rng.random((count, 15)).tolist()
        anchors: list[list[Hashable]] = [
            [f"state {key}" for key in row] for row in rng.integers(0, 40, (count, 15))
        ]
        groups = [f"task {n // 8}" for n in range(count)]
        return count_calls(
            lambda: gigpo_advantages(rewards, groups, anchors, gamma=0.95, omega=1.0, normalize="mean_std")
        )

    assert work(512) <= 8 * work(64)
