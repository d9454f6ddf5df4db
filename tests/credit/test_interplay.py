"""What a credit rule reads: the rewards that it says, and no settings of other rules."""

from __future__ import annotations

from typing import Any

import pytest

from repro_rl.config import load_config
from repro_rl.credit import CREDIT, CreditSettings, advantages, register_credit
from repro_rl.credit.rules import SHARED
from repro_rl.errors import ConfigError
from repro_rl.study.definition import grid, load_study, unused_knobs


def test_a_rule_of_ones_own_may_read_any_setting() -> None:
    with CREDIT.isolated():
        register_credit("own")(lambda inputs, settings: inputs.rows(inputs.flat("rewards")))
        load_config("sokoban-tiny", ["method=repro", "method.credit=own", "method.graphgpo.episode_weight=2"])


def test_a_methods_own_boundary_term_stands_without_estimates() -> None:
    """The method sets it, or the settings of a run repeat it: that is no mistake of the user's."""
    for settings in (["method=repro-act"], ["method=repro-act", "method.boundary_coef=0.1"]):
        assert load_config("sokoban-tiny", settings).method.boundary_coef == 0.1
    assert (
        load_config("sokoban-tiny", ["method=repro-act", "method.boundary_coef=0"]).method.boundary_coef == 0
    )


BATCH: dict[str, Any] = {
    "groups": ["t", "t", "t"],
    "anchors": [["A", "B"], ["A", "B"], ["A", "B"]],
    "final_anchors": ["C", "C", "D"],
    "rewards": [[0.0, 10.0], [0.0, 0.0], [0.0, 1.0]],
    "episode_returns": [10.0, 0.0, 1.0],
    "won": [True, False, False],
    "actions": [["x", "y"], ["y", "y"], ["x", "x"]],
    "texts": [["red door", "lamp"], ["red door", "lamp"], ["red door", "lamp"]],
    "valid": [[True, True]] * 3,
    "token_counts": [[1, 2], [2, 1], [1, 1]],
    "hindsight_log_prob": [[[-0.5], [-0.1, -0.2]], [[-1.0, -0.3], [-0.4]], [[-0.2], [-0.9]]],
}


@pytest.mark.parametrize("rule", sorted(set(CREDIT.names()) - {"mt_grpo_multi"}))
def test_a_rule_reads_the_rewards_that_it_says(rule: str) -> None:
    """A reward that moves from one step to another, and a return that changes, are seen or not."""
    batch = BATCH
    before = advantages(rule, None, **batch)["advantages"]
    moved = advantages(rule, None, **{**batch, "rewards": [[0.0, 10.0], [0.5, -0.5], [0.0, 1.0]]})
    returned = advantages(rule, None, **{**batch, "episode_returns": [10.0, 0.0, 3.0]})
    assert ("steps" in CREDIT.get(rule).paid_by) == (moved["advantages"] != before)
    assert ("episode" in CREDIT.get(rule).paid_by) == (returned["advantages"] != before)


LONGER = {  # the first trajectory has a third step, so the two means of returns differ
    **BATCH,
    "anchors": [["A", "B", "A"], ["A", "B"], ["A", "B"]],
    "rewards": [[0.0, 2.0, 10.0], [0.0, 0.5], [0.0, 1.0]],
    "episode_returns": [12.0, 0.5, 1.0],
    "actions": [["x", "y", "x"], ["y", "y"], ["x", "x"]],
    "texts": [["red door", "lamp", "red door"], ["red door", "lamp"], ["red door", "lamp"]],
    "valid": [[True, True, True], [True, True], [True, True]],
    "token_counts": [[1, 2, 1], [2, 1], [1, 1]],
    "hindsight_log_prob": [[[-0.5], [-0.1, -0.2], [-0.3]], *BATCH["hindsight_log_prob"][1:]],
}


@pytest.mark.parametrize("rule", CREDIT.names())
def test_a_rule_ignores_the_shared_settings_that_it_says(rule: str) -> None:
    start = {"gamma": 0.5, "omega": 1.0, "normalize": "mean", "episode_baseline": "steps"}
    other = {"gamma": 0.9, "omega": 0.3, "normalize": "mean_std", "episode_baseline": "trajectories"}
    assert tuple(start) == SHARED

    def given(**settings: Any) -> Any:
        return advantages(rule, CreditSettings(credit=rule, **{**start, **settings}), **LONGER)["advantages"]

    unread = [name for name in SHARED if given(**{name: other[name]}) == given()]
    assert unread == [name for name in SHARED if name in CREDIT.get(rule).ignores]


def test_an_unknown_shared_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'own' ignores 'gama', which is no shared setting.*'gamma'"):
        register_credit("own", ignores=["gama"])


@pytest.mark.parametrize(
    ("method", "idle"),
    [
        ("gigpo", set()),
        ("hcapo", set()),
        ("proxmo", {"normalize"}),
        ("hgpo", {"omega", "episode_baseline"}),
        ("gagpo", {"omega", "episode_baseline"}),
        ("grpo", {"gamma", "omega", "episode_baseline"}),
        ("rloo", {"gamma", "omega", "normalize", "episode_baseline"}),
        ("maxrl", {"gamma", "omega", "normalize", "episode_baseline"}),
    ],
)
def test_a_sweep_leaves_out_shared_settings_that_a_rule_ignores(method: str, idle: set[str]) -> None:
    knobs = {
        "method.gamma": [0.5, 0.95],
        "method.omega": [0.5, 1.0],
        "method.normalize": ["mean", "mean_std"],
        "method.episode_baseline": ["steps", "trajectories"],
    }
    sweep = {"seeds": [9], "env_steps": 100, "knobs": knobs}
    study = load_study(None, methods=[method], seeds=[0], sweep=sweep)
    (arm,) = study.methods
    assert {key.removeprefix("method.") for key in unused_knobs(study, arm) & set(knobs)} == idle
    assert len(grid(study, arm)) == 2 ** (4 - len(idle))


def test_a_sweep_leaves_out_the_boundary_term_without_estimates() -> None:
    knobs = {"method.boundary_coef": [0.1, 0.3]}
    sweep = {"seeds": [9], "env_steps": 100, "knobs": knobs}
    study = load_study(None, methods=["repro", "repro-act"], seeds=[0], sweep=sweep)
    assert [len(grid(study, arm)) for arm in study.methods] == [2, 1]


def test_a_sweep_leaves_out_settings_of_another_rule() -> None:
    knobs = {"method.graphgpo.episode_weight": [0.5, 2.0], "method.history": [1, 3], "train.lr": [1e-3]}
    study = load_study(
        None, methods=["graphgpo", "hgpo"], seeds=[0], sweep={"seeds": [9], "env_steps": 100, "knobs": knobs}
    )
    graphgpo, hgpo = (unused_knobs(study, arm) & set(knobs) for arm in study.methods)
    assert (graphgpo, hgpo) == ({"method.history"}, {"method.graphgpo.episode_weight"})
