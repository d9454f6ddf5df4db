"""What a credit rule reads: the rewards that it says, and no settings of other rules."""

from __future__ import annotations

import pytest

from repro_rl.config import load_config
from repro_rl.credit import CREDIT, advantages, register_credit
from repro_rl.credit.rules import PAID_BY
from repro_rl.study.definition import load_study, unused_knobs


def test_a_rule_of_ones_own_may_read_any_setting() -> None:
    with CREDIT.isolated():
        register_credit("own")(lambda inputs, settings: inputs.rows(inputs.flat("rewards")))
        load_config("sokoban-tiny", ["method=repro", "method.credit=own", "method.graphgpo.episode_weight=2"])


@pytest.mark.parametrize("rule", sorted(set(CREDIT.names()) - {"mt_grpo_multi"}))
def test_a_rule_reads_the_rewards_that_it_says(rule: str) -> None:
    """A reward that moves from one step to another, and a return that changes, are seen or not."""
    batch = {
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
    before = advantages(rule, None, **batch)["advantages"]
    moved = advantages(rule, None, **{**batch, "rewards": [[0.0, 10.0], [0.5, -0.5], [0.0, 1.0]]})
    returned = advantages(rule, None, **{**batch, "episode_returns": [10.0, 0.0, 3.0]})
    assert ("steps" in PAID_BY[rule]) == (moved["advantages"] != before)
    assert ("episode" in PAID_BY[rule]) == (returned["advantages"] != before)


def test_a_sweep_leaves_out_settings_of_another_rule() -> None:
    knobs = {"method.graphgpo.episode_weight": [0.5, 2.0], "method.history": [1, 3], "train.lr": [1e-3]}
    study = load_study(
        None, methods=["graphgpo", "hgpo"], seeds=[0], sweep={"seeds": [9], "env_steps": 100, "knobs": knobs}
    )
    graphgpo, hgpo = (unused_knobs(study, arm) & set(knobs) for arm in study.methods)
    assert (graphgpo, hgpo) == ({"method.history"}, {"method.graphgpo.episode_weight"})
