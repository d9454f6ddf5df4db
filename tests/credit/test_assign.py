"""Advantages of whole records; the numbers are worked by hand in the comments."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.credit import CREDIT, CreditSettings, assign_credit, reflection_advantages, register_credit
from repro_rl.errors import ConfigError
from repro_rl.types import Group, Reflection
from support.credit_cases import advantages, episode, step, two_rollouts


def test_assign_credit_keeps_shaping_out_of_the_episode_return() -> None:
    groups = two_rollouts()
    method = CreditSettings(credit="grpo", shaping="retrospective", progress=False)
    assign_credit(groups, method)
    # returns 10 and -.1 (invalid) -> mean 4.95
    assert advantages(groups) == pytest.approx([5.05] * 2 + [-5.05] * 2)
    assert groups[0].trajectories[0].steps[0].terms["shaping"] == pytest.approx(0.5)
    assign_credit(groups, method.model_copy(update={"shaping_in_episode": True}))
    # + P_T: 10 + 1 (anchored), -.1 + .1 -> mean 5.5
    assert advantages(groups) == pytest.approx([5.5] * 2 + [-5.5] * 2)


def test_assign_credit_gigpo_by_hand() -> None:
    groups = two_rollouts()
    for trajectory in groups[0].trajectories:
        for index, record in enumerate(trajectory.steps):
            record.anchor = ("state", index)
    method = CreditSettings(shaping="retrospective", alignment="retrospective", alpha=1.0, gamma=0.5)
    # alignment: no estimate, asked for: -1 per step, in the step rewards only
    assign_credit(groups, method)
    # step rewards won: .5 - 1 = -.5, 10 + .5 - 1 = 9.5; lost: .5 - 1 = -.5, -.4 - 1 - .1 = -1.5
    # returns-to-go won: 4.25, 9.5; lost: -1.25, -1.5. Per state: +-2.75, +-5.5. Episode: +-5.05.
    flat = advantages(groups)
    assert flat == pytest.approx([7.8, 10.55, -7.8, -10.55])
    assign_credit(groups, method.model_copy(update={"alignment_in_episode": True}))
    assert advantages(groups) == pytest.approx(flat)  # -2 for both


def test_split_records_the_alignment_but_does_not_credit_it_to_the_action() -> None:
    groups = two_rollouts()
    method = CreditSettings(
        credit="grpo", alignment="retrospective", alignment_in_episode=True, advantage_on="split"
    )
    groups[0].trajectories[0].steps[1].online = 100
    assign_credit(groups, method)
    # alpha .5; the estimate of 100 at the end of a success is right: -.5, 0 | -.5, -.5
    # returns without the alignment: 10 and -.1, mean 4.95
    assert advantages(groups) == pytest.approx([5.05, 5.05, -5.05, -5.05])
    assert groups[0].trajectories[0].steps[0].terms["alignment"] == -0.5
    # progress tokens: mean -.375
    apart = [s.progress_advantage for t in groups[0].trajectories for s in t.steps]
    assert apart == pytest.approx([-0.125, 0.375, -0.125, -0.125])
    assign_credit(groups, method.model_copy(update={"advantage_on": "all"}))
    # with the alignment the returns are 9.5 and -1.1: mean 4.2
    assert advantages(groups) == pytest.approx([5.3, 5.3, -5.3, -5.3])
    assert {s.progress_advantage for t in groups[0].trajectories for s in t.steps} == {0.0}


def test_a_rule_gets_every_other_term_in_rewards_and_returns() -> None:
    received = {}
    groups = two_rollouts()
    groups[0].trajectories[1].steps[0].defects = ("no_action",)
    with CREDIT.isolated():

        @register_credit("record")
        def record(rewards, groups, anchors, settings, episode_returns):  # type: ignore[no-untyped-def]
            received.update(rewards=rewards, groups=groups, anchors=anchors, returns=episode_returns)
            return rewards

        assign_credit(
            groups + two_rollouts(),
            CreditSettings(credit="record", shaping="retrospective", format_coef=0.3, progress=False),
        )
    # won: .5, 10 + .5. lost: .5 - .3 and -.4 - .1
    assert received["rewards"][0] == pytest.approx([0.5, 10.5])
    assert received["rewards"][1] == pytest.approx([0.2, -0.5])
    assert received["returns"][:2] == pytest.approx([10.0, -0.4])
    assert received["groups"] == ["0:task", "0:task", "1:task", "1:task"]
    assert received["anchors"] == [["s", "s"]] * 4


def test_failed_episodes_and_repeated_tasks() -> None:
    groups = two_rollouts()
    failed = episode([step(1, reward=100.0)], error="environment died", values=(90,))
    groups[0].trajectories.append(failed)
    groups += two_rollouts()[:1]
    assign_credit(groups, CreditSettings(credit="grpo"))
    assert failed.steps[0].advantage == 0.0
    assert failed.steps[0].terms["env"] == 100.0
    assert groups[0].trajectories[0].steps[0].advantage == pytest.approx(5.05)
    reflection_advantages(groups)
    assert failed.reflection is not None
    assert failed.reflection.advantage == 0.0
    assert failed.reflection.terms["format"] == 1.0


def test_a_group_of_failed_episodes_only() -> None:
    groups = [Group("task", [episode([step(1)], error="lost", values=(3,)) for _ in range(2)])]
    assign_credit(groups, CreditSettings(advantage_on="split"))
    reflection_advantages(groups)
    assert advantages(groups) == [0.0, 0.0]
    assign_credit([], CreditSettings())
    reflection_advantages([])


STEPS = st.lists(
    st.tuples(st.sampled_from([None, 0, 40, 100]), st.booleans(), st.floats(-2, 2), st.booleans()),
    max_size=5,
)
EPISODES = st.tuples(STEPS, st.booleans(), st.booleans(), st.booleans())
GROUPS = st.lists(st.lists(EPISODES, max_size=4), max_size=3)


def random_group(rows: list[tuple[list[tuple[int | None, bool, float, bool]], bool, bool, bool]]) -> Group:
    trajectories = []
    for steps, won, failed, judged in rows:
        records = [
            step(t, online=online, defects=("no_action",) if broken else (), reward=reward, valid=valid)
            for t, (online, broken, reward, valid) in enumerate(steps, 1)
        ]
        values = [10 * t for t in range(len(records))] if judged else None
        error = "lost" if failed else None
        trajectories.append(episode(records, won=won, values=values, error=error))
    return Group("task", trajectories)


def progress_token_advantages(group: Group) -> list[list[float]]:
    """The definition: alignment, format and boundary minus their mean over the group's known steps."""
    rows = [
        [sum(s.terms[term] for term in ("alignment", "format", "boundary")) for s in t.steps]
        for t in group.trajectories
    ]
    ends_known = [t.error is None for t in group.trajectories]
    flat = [value for row, known in zip(rows, ends_known, strict=True) if known for value in row]
    mean = sum(flat) / len(flat) if flat else 0.0
    return [
        [value - mean if known else 0.0 for value in row] for row, known in zip(rows, ends_known, strict=True)
    ]


@settings(deadline=None)
@given(GROUPS)
def test_progress_tokens_get_their_terms_centred_in_the_group(rows) -> None:  # type: ignore[no-untyped-def]
    groups = [random_group(group) for group in rows]
    method = CreditSettings(
        shaping="linear",
        alignment="retrospective",
        format_coef=0.3,
        boundary_coef=0.2,
        advantage_on="split",
    )
    assign_credit(groups, method)
    for group in groups:
        expected = progress_token_advantages(group)
        assert [[s.progress_advantage for s in t.steps] for t in group.trajectories] == expected
        assert sum(itertools.chain(*expected)) == pytest.approx(0.0, abs=1e-9)


# --- reflections


def reflections(groups: list[Group]) -> list[Reflection | None]:
    return [trajectory.reflection for group in groups for trajectory in group.trajectories]


def test_reflection_advantages() -> None:
    groups = two_rollouts()
    groups[0].trajectories.append(episode([step(1)]))
    reflection_advantages(groups)
    first, second, none = reflections(groups)
    assert none is None
    assert first is not None
    assert second is not None
    # 1 + .8 + 1 = 2.8 and 1 + 1 + 1 = 3 -> mean 2.9
    assert (first.advantage, second.advantage) == pytest.approx((-0.1, 0.1))
    assert sum(first.terms.values()) == pytest.approx(2.8)


def test_trained_says_which_reflections_are_samples() -> None:
    groups = two_rollouts() + two_rollouts()
    groups[0].trajectories.append(episode([step(1)]))  # without a reflection
    groups[1].trajectories.append(episode([step(1)], error="lost", values=(3,)))

    def flags() -> list[bool | None]:
        return [None if r is None else r.trained for r in reflections(groups)]

    reflection_advantages(groups)
    assert flags() == [True, True, None, True, True, True]
    every = [None if r is None else r.advantage for r in reflections(groups)]
    reflection_advantages(groups, [frozenset({1, 2}), frozenset()])
    assert flags() == [False, True, None, False, False, False]
    # The baseline holds every reflection, whether it is trained on or not.
    assert [None if r is None else r.advantage for r in reflections(groups)] == every
    reflection_advantages(groups, [frozenset(), frozenset({0, 2})])
    assert flags() == [False, False, None, True, False, True]


def test_a_reflection_alone_in_its_group_gets_nothing() -> None:
    groups = [Group("task", [episode([step(1)], values=(30,))])]
    reflection_advantages(groups)
    (reflection,) = reflections(groups)
    assert reflection is not None
    assert reflection.advantage == 0.0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "it returned NoneType: 'NoneType' object is not iterable"),
        ([1.0, 2.0], "it returned list: 'float' object is not iterable"),
        ([["x", 0.0], [0.0, 0.0]], "it returned list: could not convert string to float: 'x'"),
        ([[0.0, 0.0]], "it returned 1 rows for 2 trajectories"),
        ([[0.0, 0.0], [0.0]], "it returned 1 values for 2 steps for task, rollout "),
        ([[0.0, 0.0], [0.0, float("nan")]], "it returned nan for task, rollout .*, step 2"),
    ],
)
def test_a_rule_that_returns_something_else_is_named(returned, message) -> None:  # type: ignore[no-untyped-def]
    with CREDIT.isolated():
        register_credit("broken")(lambda *inputs: returned)
        with pytest.raises(ConfigError, match=f"The credit rule 'broken' must return .*; {message}"):
            assign_credit(two_rollouts(), CreditSettings(credit="broken"))
