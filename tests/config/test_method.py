"""The section method: one definition of rewards and credit, and what its fields say together."""

from __future__ import annotations

import inspect

import pytest
from pydantic import BaseModel

from repro_rl.config import METHODS, MethodSection, load_config, register_method
from repro_rl.config.recipe_files import merged
from repro_rl.credit import CREDIT, CreditSettings, RewardSettings, register_credit
from repro_rl.errors import ConfigError
from repro_rl.settings import Section


def ancestry(section: type[BaseModel]) -> list[type[BaseModel]]:
    """The class and the sections it derives from, nearest first."""
    return [kind for kind in section.__mro__ if issubclass(kind, Section) and kind is not Section]


def all_sections(root: type[Section] = Section) -> set[type[Section]]:
    return {root}.union(*(all_sections(below) for below in root.__subclasses__()))


def own_fields(section: type[BaseModel]) -> set[str]:
    return set(inspect.get_annotations(section)) & set(section.model_fields)


def test_the_section_extends_the_settings_of_credit() -> None:
    assert ancestry(MethodSection) == [MethodSection, CreditSettings, RewardSettings]


@pytest.mark.parametrize("section", sorted(all_sections(), key=lambda kind: kind.__name__))
def test_no_field_is_defined_twice(section: type[Section]) -> None:
    owners = [(name, kind.__name__) for kind in ancestry(section) for name in own_fields(kind)]
    assert len({name for name, _ in owners}) == len(owners), owners
    assert {name for name, _ in owners} == set(section.model_fields)


def test_rewards_and_credit_have_one_set_of_defaults() -> None:
    method = MethodSection.model_fields
    for name, field in CreditSettings.model_fields.items():
        assert (method[name].default, method[name].annotation) == (field.default, field.annotation)
        assert method[name].metadata == field.metadata
        assert method[name].description == field.description
    plain = CreditSettings()
    assert all(value == plain.model_dump()[name] for name, value in RewardSettings().model_dump().items())


def test_every_method_is_valid_and_sets_fields_of_the_section() -> None:
    for name in METHODS:
        settings = METHODS.get(name)
        assert set(settings) <= set(MethodSection.model_fields) - {"name"}
        method = load_config(None, [f"method={name}"]).method.model_dump()
        assert {**merged(method, settings), "name": name} == method


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.reflect=false"], "'retrospective' needs method.reflect"),
        (["method=gigpo", "method.shaping=retrospective"], "'retrospective' needs method.reflect"),
        (["method=l1", "method.alignment=retrospective"], "alignment 'retrospective' needs method.reflect"),
        (["method=gigpo", "method.alignment=oracle"], "need method.progress"),
        (["method=gigpo", "method.shaping=online"], "need method.progress"),
    ],
)
def test_contradictions(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_a_rule_of_ones_own_gets_what_it_demands() -> None:
    """What no run of these settings has is refused where the settings are read, not after an iteration."""

    def rule(rewards, groups, anchors, settings, episode_returns, *, scores):  # type: ignore[no-untyped-def]
        return rewards

    def judged(rewards, groups, anchors, settings, episode_returns, *, judged, scores=()):  # type: ignore[no-untyped-def]
        return rewards

    def turns(rewards, groups, anchors, settings, episode_returns, *, turn_rewards):  # type: ignore[no-untyped-def]
        return rewards

    with CREDIT.isolated():
        for name, function in (("by-score", rule), ("by-judge", judged), ("by-turn", turns)):
            register_credit(name)(function)
        for name, message in (
            ("by-score", "'by-score' needs the input 'scores'; a run has it with method.outcome=score"),
            ("by-judge", "needs the input 'judged'; a run has it with method.value_source=SOURCE"),
            ("by-turn", "needs the input 'turn_rewards'; the records of a run do not hold it"),
        ):
            with pytest.raises(ConfigError, match=message):
                load_config(None, ["method=gigpo", f"method.credit={name}"])
        load_config(None, ["method=gigpo", "method.credit=by-score", "method.outcome=score"])
        load_config(None, ["method=gigpo", "method.credit=by-judge", "method.value_source=linear"])


@pytest.mark.parametrize(
    ("settings", "learns", "trains", "share", "rehearses"),
    [
        ({"reflect_share": 0.25, "rehearsal": 4}, True, True, 0.25, True),
        ({"reflect_share": 0.25, "reflect_coef": 0.0}, True, False, 0.0, False),
        ({"judge": "reference", "rehearsal": 4}, False, False, 0.0, False),
        ({"reflect": False, "rehearsal": 4}, False, False, 0.0, False),
    ],
)
def test_who_is_trained(
    settings: dict[str, object], learns: bool, trains: bool, share: float, rehearses: bool
) -> None:
    method = MethodSection(**settings)  # type: ignore[arg-type]
    assert (method.learns_to_judge, method.trains_reflections) == (learns, trains)
    assert (method.trained_share, method.rehearses) == (share, rehearses)
    assert method.judged_by_reference == (method.reflect and method.judge == "reference")


def test_a_method_of_your_own() -> None:
    with METHODS.isolated():
        register_method("mine", {"credit": "rloo", "reflect": False})
        method = load_config(None, ["method=mine"]).method
        assert (method.name, method.credit, method.reflect) == ("mine", "rloo", False)
        with pytest.raises(ConfigError, match="method 'mine' is registered twice"):
            register_method("mine", {"credit": "grpo"})
    with pytest.raises(ConfigError, match="Unknown method 'mine'"):
        load_config(None, ["method=mine"])
