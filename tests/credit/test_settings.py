"""The settings of credit: their defaults, and what a wrong one is answered with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from repro_rl.credit import SOURCES, CreditSettings, RewardSettings, register_progress


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shaping": "retrospect"}, r"shaping\n.*did you mean 'retrospective'"),
        ({"alignment": "linar"}, r"alignment\n.*did you mean 'linear'"),
        (
            {"alignment": "online"},
            r"alignment\n.*the source 'online' cannot stand here: it is the estimate itself.*"
            r"Choose from: none, graph, graph_or_judged, graph_value, graph_value_or_judged, "
            r"judged_where_lost, linear, oracle, retrospective",
        ),
        ({"beta": float("nan")}, r"beta\n.*finite"),
        ({"alpha": -1.0}, r"alpha\n.*greater than or equal to 0"),
        ({"format_coef": float("inf")}, r"format_coef\n.*finite"),
        ({"align_to": "later"}, r"align_to\n.*'after' or 'before'"),
        ({"anchor": "hard"}, r"anchor\n.*'none', 'clip' or 'outcome'"),
        ({"gamma": 1.5}, r"gamma\n.*less than or equal to 1"),
        ({"omega": -0.1}, r"omega\n"),
        ({"history": -1}, r"history\n"),
        ({"normalize": "std"}, r"normalize\n.*'mean' or 'mean_std'"),
        ({"advantage_on": "progress"}, r"advantage_on\n.*'all', 'action' or 'split'"),
        ({"betta": 1.0}, r"betta\n.*not permitted"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CreditSettings(**change)


def test_assignment_is_checked_too() -> None:
    settings = RewardSettings()
    with pytest.raises(ValidationError, match=r"shaping\n.*did you mean 'oracle'"):
        settings.shaping = "oracel"
    assert settings.shaping == "none"


def test_a_registered_source_is_a_value() -> None:
    with SOURCES.isolated():
        register_progress("mine")(lambda trajectory: None)
        assert CreditSettings(shaping="mine", alignment="mine").alignment == "mine"
    with pytest.raises(ValidationError, match=r"shaping\n"):
        CreditSettings(shaping="mine")


def test_without_a_method_only_the_environment_pays() -> None:
    settings = CreditSettings()
    assert (settings.shaping, settings.alignment) == ("none", "none")
    assert (settings.format_coef, settings.boundary_coef, settings.invalid_penalty) == (0.0, 0.0, 0.1)
    assert settings.advantage_on == "all"
