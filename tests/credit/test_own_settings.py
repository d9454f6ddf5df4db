"""Settings of credit rules and sources of progress of a user's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from repro_rl import credit
from repro_rl.config import METHODS, dump_config, load_config, parse_config, register_method
from repro_rl.credit import (
    CREDIT,
    SOURCES,
    CreditInputs,
    CreditSettings,
    GroupSource,
    assign_credit,
    progress_series,
    register_credit,
    register_progress,
)
from repro_rl.credit.interplay import reads_setting
from repro_rl.errors import ConfigError
from repro_rl.types import Group, Trajectory
from support.credit_cases import advantages, episode, step, two_rollouts


@pytest.fixture(autouse=True)
def mine() -> Iterator[None]:
    with ExitStack() as stack:
        for registry in (CREDIT, SOURCES, METHODS):
            stack.enter_context(registry.isolated())

        @register_credit("scaled")
        def scaled(
            rewards: Any, groups: Any, anchors: Any, settings: Any, episode_returns: Any, *, won: Any = None,
            factor: float = 2.0, sign: int = 1,
        ) -> Any:  # fmt: skip
            return [[sign * factor * value for value in row] for row in rewards]

        @register_credit("whole")
        def whole(inputs: CreditInputs, settings: CreditSettings, *, level: float = 3.0) -> Any:
            return {"advantages": [level] * len(inputs.groups)}

        @register_progress("decayed")
        def decayed(trajectory: Trajectory, *, decay: float = 0.5) -> list[float]:
            count = len(trajectory.steps)
            return [decay ** (count - t) for t in range(1, count + 1)]

        def level(group: Group, settings: Any, *, at: float = 0.25) -> list[list[float]]:
            return [[at] * len(trajectory.steps) for trajectory in group.trajectories]

        register_progress("level")(GroupSource(level))
        yield


def test_a_rule_gets_what_the_run_gives_else_its_defaults() -> None:
    case = {"groups": ["a"], "rewards": [[1.0, 3.0]]}
    assert credit.advantages("scaled", **case)["advantages"] == [[2.0, 6.0]]
    assert credit.advantages("scaled", {"factor": 0.5, "sign": -1}, **case)["advantages"] == [[-0.5, -1.5]]
    assert credit.advantages("whole", {"level": 4}, groups=["a", "b"])["advantages"] == [4.0, 4.0]
    whole = CreditSettings(credit="scaled", credit_settings={"factor": 10})
    assert credit.advantages("scaled", whole, **case)["advantages"] == [[10.0, 30.0]]
    assert credit.advantages("whole", whole, groups=["a"])["advantages"] == [3.0]  # of another rule
    with pytest.raises(ConfigError, match="scaled: unknown setting 'faktor'; did you mean 'factor'"):
        credit.advantages("scaled", {"faktor": 1}, **case)

    groups = two_rollouts()
    assign_credit(groups, CreditSettings(credit="whole", credit_settings={"level": 7.0}))
    assert set(advantages(groups)) == {7.0}


def test_a_source_gets_what_the_run_gives_else_its_defaults() -> None:
    played = episode([step(1), step(2)])
    assert progress_series(played, "decayed") == [0.0, 0.5, 1.0]
    assert progress_series(played, "decayed", settings={"decay": 0.25}) == [0.0, 0.25, 1.0]
    for shaping, own, gains in (
        ("decayed", {}, [0.5, 0.5]),
        ("decayed", {"decayed": {"decay": 0.25}}, [0.25, 0.75]),
        ("level", {"level": {"at": 0.75}}, [0.75, 0.0]),
    ):
        group = Group("t", [episode([step(1), step(2)])])
        settings = CreditSettings(shaping=shaping, progress_settings=own)  # type: ignore[arg-type]
        assign_credit([group], settings)
        assert [s.terms["shaping"] for s in group.trajectories[0].steps] == gains


def test_a_run_records_all_of_them() -> None:
    given = [
        "method.credit=scaled", "method.credit_settings.factor=4", "method.shaping=decayed",
        "method.alignment=level", "method.progress_settings.decayed.decay=0.75", "method.progress=true",
    ]  # fmt: skip
    config = load_config("sokoban-tiny", ["method=gigpo", *given])
    assert config.method.credit_settings == {"factor": 4.0, "sign": 1}
    assert config.method.progress_settings == {"decayed": {"decay": 0.75}, "level": {"at": 0.25}}
    written = yaml.safe_load(dump_config(config))
    assert written["method"]["credit_settings"] == {"factor": 4.0, "sign": 1}
    assert parse_config(written) == config
    assert load_config("sokoban-tiny", ["method=gigpo"]).method.credit_settings == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["method.credit=scaled", "method.credit_settings.faktor=1"],
            r"^method\.credit_settings: the credit rule 'scaled' has no setting 'faktor'; did you mean 'fac",
        ),
        (
            ["method.credit=scaled", "method.credit_settings.factor=much"],
            r"^method\.credit_settings\.factor: .*valid number.*\(got 'much'\)",
        ),
        (
            ["method.credit_settings.factor=1"],
            r"credit_settings: the credit rule 'gigpo' has no setting 'factor'\. Known: none",
        ),
        (
            ["method.shaping=decayed", "method.progress_settings.decayed.decoy=1"],
            r"^method\.progress_settings\.decayed: the progress source 'decayed' has no setting 'decoy'",
        ),
        (
            ["method.shaping=decayed", "method.progress_settings.decayed.decay=[1]"],
            r"^method\.progress_settings\.decayed\.decay: .*valid number",
        ),
        (
            ["method.shaping=decayed", "method.progress_settings.level.at=1"],
            r"^method\.progress_settings\.level has no effect where nothing asks for the progress 'level'",
        ),
        (
            ["method.progress_settings.levle.at=1"],
            r"^method\.progress_settings: unknown source of progress; did you mean 'level'",
        ),
        (
            ["method.shaping=oracle", "method.progress_settings.oracle.at=1"],
            "the progress source 'oracle' has no setting 'at'. Known: none",
        ),
    ],
)
def test_wrong_settings_are_named_when_they_are_read(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("sokoban-tiny", ["method=gigpo", *settings])


def test_a_method_holds_settings_of_its_rule_and_source() -> None:
    own = {"credit": "scaled", "credit_settings": {"factor": 3.0}, "shaping": "decayed"}
    register_method("own", {**METHODS.get("gigpo"), **own, "progress_settings": {"decayed": {"decay": 0.1}}})
    method = load_config("sokoban-tiny", ["method=own", "method.credit_settings.sign=-1"]).method
    assert method.credit_settings == {"factor": 3.0, "sign": -1}
    assert method.progress_settings == {"decayed": {"decay": 0.1}}
    other = load_config("sokoban-tiny", ["method=own", "method.credit=gigpo", "method.shaping=level"]).method
    assert (other.credit_settings, other.progress_settings) == ({}, {"level": {"at": 0.25}})


def test_a_sweep_leaves_out_settings_of_another_rule() -> None:
    assert reads_setting("scaled", "credit_settings.factor")
    assert not reads_setting("whole", "credit_settings.factor")
    assert not reads_setting("gigpo", "credit_settings.factor")
    assert (reads_setting("whole", "credit_settings"), reads_setting("gigpo", "credit_settings")) == (
        True,
        False,
    )


def extra(inputs: Any, settings: Any, weight: float = 1.0) -> Any: ...
def sixth(
    rewards: Any, groups: Any, anchors: Any, settings: Any, episode_returns: Any, weight: int = 1
) -> Any: ...
def misspelt(
    rewards: Any, groups: Any, anchors: Any, settings: Any, episode_returns: Any, *, wonn: Any = None
) -> Any: ...
def unknown(
    rewards: Any, groups: Any, anchors: Any, settings: Any, episode_returns: Any, *, weight: float
) -> Any: ...


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            extra,
            r"'weight' has a default, but is not keyword-only.*after a \* .*method\.credit_settings\.weight",
        ),
        (sixth, "'weight' has a default, but is not keyword-only"),
        (misspelt, "a setting 'wonn' with the default None; for the input 'won' write that name"),
        (unknown, r"asks for an unknown input 'weight' \(a setting of its own needs a default\)"),
    ],
)
def test_rules_with_parameters_that_nothing_fills_are_refused(rule: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"The credit rule 'bad'.*{message}"):
        register_credit("bad")(rule)
    assert "bad" not in CREDIT.names()


def test_a_setting_that_all_methods_have_is_read_from_there() -> None:
    @register_credit("double")
    def double(inputs: CreditInputs, settings: CreditSettings, *, gamma: float = 0.9) -> Any: ...

    with pytest.raises(
        ConfigError, match=r"a setting 'gamma', which is method\.gamma already: read settings\."
    ):
        load_config("sokoban-tiny", ["method=gigpo", "method.credit=double"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: [], r"must take \(trajectory, \*, SETTING=VALUE, \.\.\.\); it takes \(\)"),
        (lambda trajectory, more: [], r"it takes \(trajectory, more\)"),
        (lambda trajectory, decay=1: [], r"not keyword-only.*method\.progress_settings\.bad\.decay"),
        (GroupSource(lambda group: []), r"must take \(group, settings, \*, SETTING=VALUE, \.\.\.\)"),
        (lambda trajectory, *, decay: [], "give its setting 'decay' a default"),
    ],
)
def test_sources_of_another_form_are_refused(source: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"The progress source 'bad'.*{message}"):
        register_progress("bad")(source)
    assert "bad" not in SOURCES.names()
