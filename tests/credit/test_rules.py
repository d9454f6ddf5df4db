"""Credit rules by name."""

from __future__ import annotations

import pytest

from repro_rl.credit import CREDIT, CreditSettings, assign_credit, register_credit
from repro_rl.errors import ConfigError, UnknownNameError
from support.credit_cases import advantages, two_rollouts


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


def test_a_rule_of_your_own() -> None:
    groups = two_rollouts()
    with CREDIT.isolated():

        @register_credit("constant")
        def constant(rewards, groups, anchors, settings, episode_returns):  # type: ignore[no-untyped-def]
            return [[1.0] * len(row) for row in rewards]

        @register_credit("short")
        def short(rewards, groups, anchors, settings, episode_returns):  # type: ignore[no-untyped-def]
            return [[1.0] for _ in rewards]

        assign_credit(groups, CreditSettings(credit="constant"))
        assert set(advantages(groups)) == {1.0}
        with pytest.raises(ConfigError, match="credit rule 'short'"):
            assign_credit(groups, CreditSettings(credit="short"))
        assert list(CREDIT) == CREDIT.names()
        assert {"constant", "short"} < set(CREDIT)
    with pytest.raises(UnknownNameError, match="credit rule 'constant'"):
        assign_credit(groups, CreditSettings(credit="constant"))


def test_a_rule_that_fails_is_named_with_the_place() -> None:
    with CREDIT.isolated():

        @register_credit("broken")
        def broken(rewards, groups, anchors, settings, episode_returns):  # type: ignore[no-untyped-def]
            return rewards["a"]

        with pytest.raises(
            ConfigError, match=r"The credit rule 'broken' failed: TypeError: .* \(test_rules\.py, line \d+\)"
        ):
            assign_credit(two_rollouts(), CreditSettings(credit="broken"))


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_rules_of_whole_trajectories_name_unequal_lengths(name: str) -> None:
    rule = CREDIT.get(name)
    for groups, returns in ((["a", "a"], None), (["a"], [1.0, 2.0])):
        with pytest.raises(ConfigError, match=f"{name}: .*one entry per trajectory"):
            rule([[1.0]], groups, [["x"]], CreditSettings(), returns)
