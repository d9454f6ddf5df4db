"""What every rule must keep: order, names, constants, lost tasks, and sums over a state."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.credit import CREDIT, advantages

SHIPPED = (
    *("grpo", "rloo", "gigpo", "hgpo", "dr_grpo", "reinforce_pp", "reinforce_pp_baseline", "maxrl"),
    *("graphgpo", "g2po", "gagpo", "pace", "proxmo", "mt_grpo", "hcapo"),
)
WORDS = ("red box", "green door", "red door", "lamp on table", "box on table")
# Of the rules that read the return of the episode. Advantages do not change when a constant is added to the
# returns of a task (nobody alone in it); those of hcapo do: its step part is a share of the return.
SHIFTED = tuple(rule for rule in SHIPPED if "episode" in CREDIT.get(rule).paid_by and rule != "hcapo")
# All lost and only the outcome pays: nothing to learn. The other two whiten over the whole batch.
SILENT = tuple(rule for rule in SHIPPED if not rule.startswith("reinforce_pp"))
# What the step part sums to 0 over. Of the others, hgpo weighs depths of which early steps have fewer,
# proxmo's is relative to no set, mt_grpo's to a step number.
SUMS_TO_0 = {
    **dict.fromkeys(("gigpo", "graphgpo", "pace"), "state"),
    **dict.fromkeys(("g2po", "gagpo", "hcapo"), "task"),
}


@st.composite
def batches(draw: st.DrawFn, *, won: bool | None = None, least: int = 1) -> dict[str, Any]:
    """Tasks of trajectories over few states; a win pays 10 at its end, and nothing else pays."""
    batch: dict[str, Any] = defaultdict(list)
    for task in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(least, 4))):
            size = draw(st.integers(1, 5))
            wins = draw(st.booleans()) if won is None else won
            keys = draw(st.lists(st.sampled_from("ABCD"), min_size=size, max_size=size))
            batch["groups"].append(f"task{task}")
            batch["anchors"].append(keys)
            batch["final_anchors"].append(draw(st.sampled_from("ABCDE")))
            batch["actions"].append(draw(st.lists(st.sampled_from("xy"), min_size=size, max_size=size)))
            batch["texts"].append(draw(st.lists(st.sampled_from(WORDS), min_size=size, max_size=size)))
            batch["valid"].append([True] * size)
            batch["won"].append(wins)
            batch["rewards"].append([0.0] * (size - 1) + [10.0 * wins])
            batch["episode_returns"].append(10.0 * wins)
            counts = draw(st.lists(st.integers(1, 3), min_size=size, max_size=size))
            batch["token_counts"].append(counts)
            logs = st.floats(-3, -0.01)
            batch["hindsight_log_prob"].append(
                [draw(st.lists(logs, min_size=count, max_size=count)) for count in counts]
            )
    return dict(batch)


def rows(rule: str, batch: dict[str, Any], how: dict[str, Any] | None = None) -> list[list[float]]:
    """N lists of T_n, also of a rule that gives one number a trajectory."""
    values = advantages(rule, how, **batch)["advantages"]
    sizes = [len(keys) for keys in batch["anchors"]]
    return [
        list(value) if isinstance(value, list) else [value] * size
        for value, size in zip(values, sizes, strict=True)
    ]


def same(got: list[list[float]], want: list[list[float]], tolerance: float = 1e-6) -> None:
    assert [len(row) for row in got] == [len(row) for row in want]
    for a, b in zip(got, want, strict=True):
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance)


def test_no_rule_is_forgotten() -> None:
    assert set(CREDIT.names()) == {*SHIPPED, "mt_grpo_multi"}


@pytest.mark.parametrize("rule", SHIPPED)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_order_and_names_do_not_matter(rule: str, data: st.DataObject) -> None:
    batch = data.draw(batches())
    want = rows(rule, batch)
    order = data.draw(st.permutations(range(len(want))))
    same(
        rows(rule, {name: [values[i] for i in order] for name, values in batch.items()}),
        [want[i] for i in order],
    )
    renamed = {
        **batch,
        "groups": [("other", group) for group in batch["groups"]],
        "anchors": [[(7, key) for key in keys] for keys in batch["anchors"]],
        "final_anchors": [(7, key) for key in batch["final_anchors"]],
    }
    same(rows(rule, renamed), want)


@pytest.mark.parametrize("how", ["mean", "mean_std"])
@pytest.mark.parametrize("rule", SHIFTED)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_constant_added_to_a_task_changes_nothing(rule: str, how: str, data: st.DataObject) -> None:
    batch = data.draw(batches(least=2))
    shift = data.draw(st.floats(-5, 5))
    moved = [
        r + shift * (g == "task0") for r, g in zip(batch["episode_returns"], batch["groups"], strict=True)
    ]
    same(
        rows(rule, {**batch, "episode_returns": moved}, {"normalize": how}),
        rows(rule, batch, {"normalize": how}),
        1e-5,
    )


def test_a_constant_counts_where_the_outcome_is_a_factor() -> None:
    """MaxRL divides by it; in G2PO, HCAPO and ProxMO's form for returns it is a value, or clamped."""
    batch: dict[str, Any] = {
        "groups": ["t", "t"],
        "anchors": [["A", "B"], ["A", "C"]],
        "final_anchors": ["D", "D"],
        "rewards": [[0.0, 0.5], [0.0, 0.25]],
        "valid": [[True, True], [True, True]],
        "texts": [["red door", "lamp"], ["red door", "lamp"]],
        "hindsight_log_prob": [[[-0.5], [-0.1]], [[-1.0], [-0.3]]],
    }
    for rule, outcome in (("maxrl", "scores"), ("g2po", "scores"), ("hcapo", "episode_returns")):
        given = {**batch, "won": [True, False], "episode_returns": [0.5, 0.25]}
        before, after = (rows(rule, {**given, outcome: [0.5 + shift, 0.25 + shift]}) for shift in (0.0, 0.25))
        assert before != after, rule
    before, after = (rows("proxmo", {**batch, "episode_returns": [0.4 + s, 0.2 + s]}) for s in (0.0, 0.3))
    assert before != after


@pytest.mark.parametrize("how", ["mean", "mean_std"])
@pytest.mark.parametrize("rule", SILENT)
@settings(max_examples=12, deadline=None)
@given(lost=batches(won=False), others=batches())
def test_where_all_lost_there_is_nothing_to_learn(
    rule: str, how: str, lost: dict[str, Any], others: dict[str, Any]
) -> None:
    """Whatever happened in the other tasks of the batch."""
    others = {**others, "groups": [f"other {group}" for group in others["groups"]]}
    batch = {name: [*lost[name], *others[name]] for name in lost}
    found = rows(rule, batch, {"normalize": how})[: len(lost["groups"])]
    same(found, [[0.0] * len(keys) for keys in lost["anchors"]])


@pytest.mark.parametrize("how", ["mean", "mean_std"])
@settings(max_examples=20, deadline=None)
@given(batch=batches(won=False), data=st.data())
def test_where_all_lost_g2po_compares_penalties_alone(how: str, batch: dict[str, Any], data: Any) -> None:
    refused = [[data.draw(st.booleans()) for _ in keys] for keys in batch["anchors"]]
    batch = {**batch, "valid": [[not value for value in row] for row in refused]}
    same(
        rows("g2po", batch, {"normalize": how, "invalid_penalty": 0.0}),
        [[0.0] * len(keys) for keys in batch["anchors"]],
    )
    mean = rows("g2po", batch, {"normalize": "mean", "invalid_penalty": 0.1})
    of_state: dict[Any, list[bool]] = defaultdict(list)
    for group, keys, row in zip(batch["groups"], batch["anchors"], refused, strict=True):
        for key, value in zip(keys, row, strict=True):
            of_state[group, key].append(value)
    for group, keys, row, got in zip(batch["groups"], batch["anchors"], refused, mean, strict=True):
        for key, value, advantage in zip(keys, row, got, strict=True):
            share = sum(of_state[group, key]) / len(of_state[group, key])
            assert advantage == pytest.approx(0.1 * (share - value), abs=1e-9)


@pytest.mark.parametrize("how", ["mean", "mean_std"])
@pytest.mark.parametrize("rule", SUMS_TO_0)
@settings(max_examples=12, deadline=None)
@given(batch=batches())
def test_a_step_part_sums_to_0_over_what_it_is_relative_to(
    rule: str, how: str, batch: dict[str, Any]
) -> None:
    own = {"do_no_harm": False} if rule == "hcapo" else {}  # which takes parts of wins away
    whole = rows(rule, batch, {"normalize": how, **own})
    episode = [[0.0] * len(row) for row in whole]
    if rule != "gagpo":  # whose whole advantage is the step part
        episode = rows(rule, batch, {"normalize": how, "omega": 0.0, **own})
    sums: dict[Any, float] = defaultdict(float)
    for group, keys, row, less in zip(batch["groups"], batch["anchors"], whole, episode, strict=True):
        for key, value, part in zip(keys, row, less, strict=True):
            sums[group, key if SUMS_TO_0[rule] == "state" else None] += value - part
    assert list(sums.values()) == pytest.approx([0.0] * len(sums), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_order_does_not_matter_to_mt_grpo_with_one_tool_call(data: st.DataObject) -> None:
    batch = data.draw(batches())
    sizes = [len(keys) for keys in batch["anchors"]]
    batch["turn_rewards"] = [data.draw(st.floats(-1, 1)) for _ in sizes]
    batch["first_step_after_tool"] = [
        data.draw(st.none() | st.integers(0, size - 1)) if size > 1 else None for size in sizes
    ]
    batch["outcome_rewards"] = batch["episode_returns"]
    want = rows("mt_grpo", batch)
    order = data.draw(st.permutations(range(len(want))))
    same(
        rows("mt_grpo", {name: [values[i] for i in order] for name, values in batch.items()}),
        [want[i] for i in order],
    )


@settings(max_examples=12, deadline=None)
@given(batch=batches())
def test_gagpo_with_lambda_1_is_gigpos_centred_step_part(batch: dict[str, Any]) -> None:
    batch = {**batch, "episode_returns": [0.0] * len(batch["groups"])}
    raw = advantages("gagpo", {"lam": 1.0, "gamma": 0.9, "normalize": "mean"}, **batch)["raw_advantages"]
    same(raw, rows("gigpo", batch, {"gamma": 0.9, "normalize": "mean"}))


@pytest.mark.parametrize("rule", SHIPPED)
def test_nothing_at_all_is_no_error(rule: str) -> None:
    empty: dict[str, Any] = {
        name: [] for name in ("groups", "anchors", "final_anchors", "actions", "texts", "valid", "won")
    }
    more: dict[str, Any] = {
        name: [] for name in ("rewards", "episode_returns", "token_counts", "hindsight_log_prob")
    }
    assert advantages(rule, None, **empty, **more)["advantages"] == []


def test_equal_values_that_float32_cannot_hold_give_exactly_nothing() -> None:
    """95 wins with one penalty of 0.1: float32 would give -0.65."""
    batch = {
        "groups": ["t"] * 95,
        "anchors": [["A"]] * 95,
        "final_anchors": ["B"] * 95,
        "rewards": [[9.9]] * 95,
        "won": [True] * 95,
        "valid": [[True]] * 95,
        "actions": [["x"]] * 95,
    }
    for rule in ("grpo", "gigpo", "graphgpo", "g2po", "gagpo", "pace"):
        for row in rows(rule, batch, {"normalize": "mean_std"}):
            assert abs(row[0]) < 1e-7
