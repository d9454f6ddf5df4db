"""Inputs of the rules: what is wrong is named, never bent; numpy arrays are as good as lists."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repro_rl.credit
from repro_rl.credit import CREDIT, CreditSettings, advantages
from repro_rl.errors import ConfigError

BATCH: dict[str, Any] = {
    "groups": ["t", "t", "u"],
    "anchors": [["A", "B"], ["A", "A"], ["A"]],
    "final_anchors": ["C", "B", "D"],
    "rewards": [[0.0, 10.0], [0.0, 0.0], [1.0]],
    "episode_returns": [10.0, 0.0, 1.0],
    "won": [True, False, False],
    "valid": [[True, True], [True, False], [True]],
    "actions": [["x", "y"], ["y", "y"], ["x"]],
    "texts": [["red door", "lamp"], ["red door", "lamp"], ["lamp"]],
    "token_counts": [[1, 2], [2, 1], [1]],
    "hindsight_log_prob": [[[-0.5], [-0.1, -0.2]], [[-1.0, -0.3], [-0.4]], [[-0.2]]],
    "scores": [1.0, 0.5, 0.0],
}
MAYBE_JUDGED = {"graphgpo", "g2po", "gagpo"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("token_counts", [[1.5, 2], [2, 1], [1]], "token_counts: value 0 is 1.5; it must be a whole number"),
        ("token_counts", [[1, 2], [-3, 1], [1]], "token_counts: value 2 is -3; it must be a whole number"),
        ("lengths", [2, 2, 1.5], "lengths: value 2 is 1.5; it must be a whole number"),
        ("lengths", [2, 2, -1], "lengths: value 2 is -1"),
        ("scores", [5, 0, 0], "scores: value 0 is 5; it must be a fraction from 0 to 1"),
        ("scores", [-0.1, 0, 0], "scores: value 0 is -0.1"),
        ("won", [2, 0, 0], "won: value 0 is 2; it must be True or False"),
        ("won", [0.5, 0, 0], "won: value 0 is 0.5"),
        ("won", [math.nan, 0, 0], "won: value 0 is nan"),
        ("valid", [[True, True], [True, 3], [True]], "valid: value 3 is 3; it must be True or False"),
        ("judged", [[0.0, 0.5], None, None], "trajectory 0 has 2 judged values and 2 steps; give P_0..P_T"),
        ("judged", [None, [0.0, 0.5, 1.0, 1.0], None], "trajectory 1 has 4 judged values and 2 steps"),
        ("judged", [[0.0, 0.5, 50.0], None, None], "judged: value 2 is 50; it must be a fraction"),
        ("judged", [[0.0, -0.5, 0.5], None, None], "judged: value 1 is -0.5"),
        ("judged", [[0.3, 0.5, 0.5], None, None], r"judged of trajectory 0 begins with 0\.3; P_0, before"),
        ("judged", [0.5, None, None], "judged of trajectory 0 is '0.5'; it must be a list"),
        (
            "hindsight_log_prob",
            [[[0.4], []], [[], []], [[]]],
            r"\[0\]\[0\]\[0\] holds 0\.4, which is no log-p",
        ),
        ("turn_rewards", [[1.0, 0.0], 1.0, [0.0]], "turn_rewards holds lists and single numbers"),
        ("turn_rewards", [[1.0], [1.0, 0.0, 0.0], [0.0]], "trajectory 0 has 1 turn_rewards and 2 steps"),
        (
            "first_step_after_tool",
            [1.5, None, None],
            "first_step_after_tool of trajectory 0 is 1.5; give the",
        ),
        ("first_step_after_tool", [None, 3, None], "of trajectory 1 is 3; give the number of a step, 0 to 2"),
        ("first_step_after_tool", [-1, None, None], "of trajectory 0 is -1"),
        ("first_step_after_tool", [math.nan, None, None], "of trajectory 0 is nan"),
        ("groups", ["t", math.nan, "u"], "groups holds nan, which is equal to nothing"),
        ("anchors", [["A", math.nan], ["A", "A"], ["A"]], "anchors holds nan"),
        ("final_anchors", ["C", math.nan, "D"], "final_anchors holds nan"),
        ("texts", [["red door", None], ["", ""], [""]], "texts holds None; every observation must be text"),
    ],
)
@pytest.mark.parametrize("rule", ["gigpo", "maxrl", "g2po", "reinforce_pp"])
def test_a_wrong_input_is_named(rule: str, name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        advantages(rule, None, **{**BATCH, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("won", [1, 0, 0.0]), ("token_counts", [[1.0, 2], [0, 1], [1]]), ("scores", [True, 0.5, 0])],
)
def test_whole_floats_and_flags_as_numbers_are_no_mistake(name: str, value: Any) -> None:
    for rule in ("maxrl", "g2po", "reinforce_pp"):
        advantages(rule, None, **{**BATCH, name: value})


@pytest.mark.parametrize(
    ("rule", "settings", "inputs", "message"),
    [
        ("dapo_extras", {"max_length": 3, "buffer": 1, "factor": 1}, {"lengths": [1.5]}, "value 0 is 1.5"),
        ("dapo_extras", {"max_length": 3, "buffer": 1, "factor": 1}, {"lengths": [-1]}, "value 0 is -1"),
        ("dapo_extras", {"max_length": 3, "buffer": 4, "factor": 1}, {"lengths": [1]}, "must not exceed"),
        ("dapo_extras", {"max_length": 3, "buffer": 1, "factor": -1}, {"lengths": [1]}, "factor: .*0"),
        ("progress_advantage", {}, {"log_prob": [[0.5]], "ref_log_prob": [[-1.0]]}, "0.5, which is no log"),
        ("graphgpo", {"step_weight": 2.0, "omega": 1.0}, BATCH, "'step_weight' is another name of 'omega'"),
        ("mt_grpo_multi", {}, {**BATCH, "turn_rewards": [1.0, 0.0, 0.0]}, "give one a step, or take mt_grpo"),
    ],
)
def test_a_wrong_call_is_named(rule: str, settings: Any, inputs: Any, message: str) -> None:
    if rule == "dapo_extras":
        inputs = {**inputs, "groups": ["t"], "episode_returns": [0.0]}
    with pytest.raises(ConfigError, match=message):
        advantages(rule, settings, **inputs)


@pytest.mark.parametrize("rule", CREDIT.names())
def test_a_rule_takes_numpy_arrays_as_it_takes_lists(rule: str) -> None:
    batch = {name: BATCH[name] for name in BATCH if name != "scores"}
    if rule in MAYBE_JUDGED:
        batch["judged"] = [[0.0, 0.4, 0.8], [0.0, 0.1, 0.2], None]
    if rule.startswith("mt_grpo"):
        batch["turn_rewards"] = batch["rewards"]
    how = CreditSettings(credit=rule, value_source="oracle" if rule in MAYBE_JUDGED else "outcome")
    arrays = {
        name: np.asarray(values)
        if name in ("groups", "final_anchors", "episode_returns", "won")
        else [None if row is None else _array(row) for row in values]
        for name, values in batch.items()
    }
    assert advantages(rule, how, **arrays) == advantages(rule, how, **batch)


def _array(row: list[Any]) -> Any:
    return [np.asarray(item) for item in row] if isinstance(row[0], list) else np.asarray(row)


def test_a_square_batch_of_arrays() -> None:
    """Every input a numpy array of two dimensions, where truth values of arrays would fail."""
    rows = {"anchors": [["A", "B"], ["A", "A"]], "rewards": [[0.0, 1.0], [0.0, 0.0]]}
    for rule in ("gigpo", "hgpo", "gagpo", "pace", "mt_grpo"):
        more = {"actions": [["x", "y"], ["x", "x"]], "groups": ["t", "t"], "episode_returns": [1.0, 0.0]}
        batch = {**rows, **more}
        arrays = {name: np.asarray(values) for name, values in batch.items()}
        assert advantages(rule, None, **arrays) == advantages(rule, None, **batch)


def test_the_start_state_is_worth_nothing_also_when_it_is_reached_again() -> None:
    """Decision D1, as in pooled judgements.

    Task t starts at A: 0, though its second visit is judged .4 and its third .6. B is judged .5 and .3. In
    task u nothing is judged, so its start keeps the outcomes' value: V = .95^2 * 10 for a win of two steps.
    """
    batch = {
        "groups": ["t", "t", "u"],
        "anchors": [["A", "B"], ["A", "B", "A"], ["A", "B"]],
        "final_anchors": ["A", "C", "C"],
        "won": [False, False, True],
        "valid": [[True, True], [True, True, True], [True, True]],
        "episode_returns": [0.0, 0.0, 10.0],
    }
    judged = [[0.0, 0.5, 0.4], [0.0, 0.3, 0.6, 0.7], None]
    how = CreditSettings(credit="g2po", value_source="oracle", gamma=0.95)
    got = advantages("g2po", how, **batch, judged=judged)
    assert got["node_values"] == [
        pytest.approx(row) for row in [[0.0, 4.0], [0.0, 4.0, 0.0], [0.95**2 * 10, 9.5]]
    ]
    graph = CreditSettings(credit="graphgpo", value_source="oracle", gamma=0.5)
    steps = advantages("graphgpo", graph, **batch, judged=judged)["step_returns"]
    # after each step: B 4, then the start again 0; B 4, the start 0, C .7; the win of u ends at 10
    assert steps[:2] == [pytest.approx([4.0, 0.0]), pytest.approx([4.0, 0.0, 7.0])]
    assert steps[2][1] == 10.0


def test_a_rule_is_one_pure_function_in_a_short_file_of_its_own() -> None:
    folder = Path(repro_rl.credit.__file__).parent
    rules = [name for name in CREDIT.names() if CREDIT.get(name).shipped]
    assert len(rules) == 16
    for rule in rules:
        text = (folder / f"{rule}.py").read_text()
        assert re.findall(r"def (\w+)_advantages\(", text) == [rule]
        assert text.count("@register_credit(") <= 1, rule
        assert len(text.splitlines()) < 100, rule
        assert "arXiv" in text.splitlines()[0], rule


def test_groups_of_dapo_extras_are_keys_too() -> None:
    settings = {"max_length": 4, "buffer": 2, "factor": 1.0}
    with pytest.raises(ConfigError, match="dapo_extras: groups holds nan, which is equal to nothing"):
        advantages("dapo_extras", settings, lengths=[3], groups=[math.nan], episode_returns=[1.0])
