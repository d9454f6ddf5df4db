"""Credit rules by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from repro_rl import credit, registry
from repro_rl.credit import (
    CREDIT,
    CreditInputs,
    CreditRule,
    CreditSettings,
    assign_credit,
    reads,
    register_credit,
    rules as rules_module,
)
from repro_rl.credit.call import call_rule
from repro_rl.credit.interplay import reads_setting
from repro_rl.errors import ConfigError, UnknownNameError
from repro_rl.registry import Registry
from support.credit_cases import advantages, two_rollouts


def test_registry() -> None:
    assert {"grpo", "gigpo"} <= set(CREDIT.names())
    rewards, anchors = [[0.0, 10.0], [4.0]], [["x", "y"], ["x"]]

    def grpo(rewards: list[list[float]], returns: list[float] | None = None) -> Any:
        inputs = CreditInputs(["a", "a"], rewards=rewards, episode_returns=returns)
        return call_rule("grpo", inputs, CreditSettings())["advantages"]

    assert grpo(rewards) == [[3.0, 3.0], [-3.0]]
    assert grpo(rewards, [1.0, 0.0]) == [[0.5, 0.5], [-0.5]]
    assert grpo([[], [2.0]]) == [[], [2.0]]
    gigpo = CREDIT.get("gigpo").function
    settings = CreditSettings(gamma=0.5, omega=2.0, episode_baseline="trajectories")
    # x holds 0 + .5 * 10 = 5 and 4 -> +.5, -.5
    assert gigpo(rewards, ["a", "a"], anchors, settings, None) == [[3.0 + 1.0, 3.0], [-3.0 - 1.0]]
    with pytest.raises(UnknownNameError, match="did you mean 'gigpo'"):
        CREDIT.get("gipgo")


def test_a_rule_of_your_own() -> None:
    groups = two_rollouts()
    with CREDIT.isolated():

        @register_credit("even")
        def even(rewards, groups, anchors, settings, episode_returns):  # type: ignore[no-untyped-def]
            return [[1.0] * len(row) for row in rewards]

        @register_credit("short")
        def short(rewards, groups, anchors, settings, episode_returns):  # type: ignore[no-untyped-def]
            return [[1.0] for _ in rewards]

        assign_credit(groups, CreditSettings(credit="even"))
        assert set(advantages(groups)) == {1.0}
        with pytest.raises(ConfigError, match="credit rule 'short'"):
            assign_credit(groups, CreditSettings(credit="short"))
        assert list(CREDIT) == CREDIT.names()
        assert {"even", "short"} < set(CREDIT)
    with pytest.raises(UnknownNameError, match="credit rule 'even'"):
        assign_credit(groups, CreditSettings(credit="even"))


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
    for groups, returns in ((["a", "a"], None), (["a"], [1.0, 2.0])):
        with pytest.raises(
            ConfigError, match=f"{name}: .* has . entries and groups .; give one a trajectory"
        ):
            credit.advantages(name, groups=groups, rewards=[[1.0]], episode_returns=returns)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_rules_of_whole_trajectories_need_no_rewards(name: str) -> None:
    found = credit.advantages(
        name, {"normalize": "mean"} if name == "grpo" else None, groups=["a", "a"], lengths=[2, 1],
        episode_returns=[1.0, 0.0],
    )  # fmt: skip
    half = 0.5 if name == "grpo" else 1.0
    assert found["advantages"] == [[half, half], [-half]]


def test_what_a_rule_says_of_itself_is_forgotten_with_its_name() -> None:
    def steps(inputs: CreditInputs, settings: CreditSettings) -> Any:
        return inputs.rows(inputs.flat("rewards"))

    with CREDIT.isolated():
        register_credit("own", needs=["judged"], paid_by=["steps"], ignores=["gamma"])(steps)
        assert reads("own") == ("judged",)
        assert not reads_setting("own", "gamma")
    with CREDIT.isolated():
        CREDIT.register("own")(steps)  # type: ignore[arg-type]  # as an entry point announces it
        assert CREDIT.get("own") == CreditRule(steps)
        assert reads("own") == ()
        assert reads_setting("own", "gamma")


def test_a_rule_that_a_package_announces_keeps_what_its_module_registers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pyproject.toml announces the function; loading it imports the module, whose decorator says more."""

    def rule(inputs: CreditInputs, settings: CreditSettings) -> Any:
        return inputs.rows(inputs.flat("rewards"))

    def load() -> Any:
        return register_credit("far", paid_by=["steps"])(rule)

    points = (SimpleNamespace(name="far", value="package:rule", load=load),)
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points)
    rules: Registry[CreditRule] = Registry("credit rule", group="repro_rl.credit", record=CreditRule.of)
    monkeypatch.setattr(rules_module, "CREDIT", rules)
    assert rules.get("far") == CreditRule(rule, paid_by=("steps",))
