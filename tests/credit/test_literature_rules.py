"""The rules of the literature on numbers worked by hand, and what the entry refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from repro_rl.credit import CreditInputs, CreditSettings, advantages, reads, register_credit
from repro_rl.credit.rules import demands
from repro_rl.credit.tfidf import tfidf
from repro_rl.errors import ConfigError, UnknownNameError

# One task on a line A - B - C - goal. The win goes straight; the loss turns back at B and stays at A.
LINE: dict[str, Any] = {
    "groups": ["t", "t"],
    "anchors": [["A", "B", "C"], ["A", "B", "A"]],
    "final_anchors": ["end", "A"],
    "won": [True, False],
    "valid": [[True, True, True], [True, True, False]],
    "actions": [["right", "right", "right"], ["right", "left", "up"]],
    "rewards": [[0.0, 0.0, 10.0], [0.0, 0.0, 0.0]],
    "episode_returns": [10.0, 0.0],
}
MEAN = {"normalize": "mean"}


def close(rows: Any) -> Any:
    return [pytest.approx(row, abs=1e-9) for row in rows]


def test_graphgpo_on_a_line() -> None:
    got = advantages("graphgpo", {**MEAN, "gamma": 0.5, "episode_weight": 0.0}, **LINE)
    # distances to the goal: A 3, B 2, C 1, goal 0
    assert got["next_distance"] == [[2, 1, 0], [2, 3, 3]]
    assert got["step_returns"] == [[2.5, 5.0, 10.0], [2.5, 1.25, 1.25]]
    # at A: 2.5, 2.5, 1.25, mean 25/12; at B: 5, 1.25; C alone
    assert got["advantages"] == close([[5 / 12, 1.875, 0.0], [5 / 12, -1.875, -10 / 12]])
    with_episode = advantages("graphgpo", {**MEAN, "gamma": 0.5}, **LINE)["advantages"]
    assert with_episode == close([[5 + 5 / 12, 6.875, 5.0], [-5 + 5 / 12, -6.875, -5 - 10 / 12]])


def test_graphgpo_where_a_state_leads_nowhere() -> None:
    """X leads to no goal: one more than the farthest state that does. Nobody wins task u: all alike."""
    inputs = {
        "groups": ["t", "t", "u", "u"],
        "anchors": [["A"], ["A", "X"], ["A"], ["A"]],
        "final_anchors": ["end", "X", "B", "C"],
        "won": [True, False, False, False],
        "episode_returns": [0.0] * 4,
    }
    got = advantages("graphgpo", {**MEAN, "gamma": 0.5}, **inputs)
    assert got["next_distance"] == [[0], [2, 2], [1], [1]]
    assert got["advantages"] == close([[3.75], [-3.75, 0.0], [0.0], [0.0]])
    relative = advantages("graphgpo", {**MEAN, "gamma": 0.5, "relative_distance": True}, **inputs)
    # exponent d(s') - d(s) + 1, from d(A) = 1 and d(X) = 2
    assert relative["step_returns"] == [[10.0], [2.5, 5.0], [5.0], [5.0]]


def test_g2po_on_a_line() -> None:
    got = advantages("g2po", {**MEAN, "gamma": 0.5, "omega": 1.0, "invalid_penalty": 0.1}, **LINE)
    # V: A (1.25 + 0 + 0) / 3, B (2.5 + 0) / 2, C 5
    a, b, c = 1.25 / 3, 1.25, 5.0
    assert got["node_values"] == close([[a, b, c], [a, b, a]])
    u = [b, c, 10.0, b, a, -0.1]
    at_a, at_b = (u[0] + u[3] + u[5]) / 3, (u[1] + u[4]) / 2
    gain = [b - a, c - b, 10 - c, b - a, a - b, -a]
    mean = sum(gain) / 6
    transition = [u[0] - at_a, u[1] - at_b, 0.0, u[3] - at_a, u[4] - at_b, u[5] - at_a]
    want = [t + g - mean for t, g in zip(transition, gain, strict=True)]
    assert got["step_part"] == close([want[:3], want[3:]])
    lone = advantages("g2po", None, **{k: v[:1] for k, v in LINE.items()} | {"groups": ["t"]})
    assert all(math.isfinite(value) for value in lone["advantages"][0])


def test_g2po_gives_a_task_of_one_step_its_return_alone() -> None:
    one = {"groups": ["t"], "anchors": [["A"]], "won": [True], "valid": [[True]], "episode_returns": [10.0]}
    assert advantages("g2po", None, **one)["advantages"] == [[10.0]]


def test_gagpo_between_its_two_ends() -> None:
    settings = {**MEAN, "gamma": 0.5}
    # V: A (2.5 + 0 + 0) / 3, B 2.5, C 10
    a, b, c = 2.5 / 3, 2.5, 10.0
    got = advantages("gagpo", {**settings, "lam": 0.0}, **LINE)
    raw = [[b / 2 - a, c / 2 - b, 10 - c], [b / 2 - a, a / 2 - b, -a]]
    assert got["raw_advantages"] == close(raw)
    mean = sum(map(sum, raw)) / 6
    assert got["advantages"] == close([[value - mean for value in row] for row in raw])
    whole = advantages("gagpo", {**settings, "lam": 1.0}, **LINE)["raw_advantages"]
    assert whole == close([[2.5 - a, 5 - b, 10 - c], [-a, -b, -a]])


def test_pace_compares_actions() -> None:
    got = advantages("pace", {"gamma": 0.5, "omega": 1.0, "normalize": "mean"}, **LINE)
    # at A: right 2.5, right 0, up 0; at B: right 5, left 0; C alone
    assert got["branch"] == [["q-v", "q-v", "single"], ["q-v", "q-v", "q-v"]]
    v = 2.5 / 3
    assert got["step_part"] == close([[1.25 - v, 2.5, 0.0], [1.25 - v, -2.5, -v]])
    same = {"groups": ["t", "t"], "anchors": [["A"], ["A"]], "actions": [["go"], ["go"]]}
    one = advantages("bipace", None, **same, rewards=[[4.0], [1.0]], episode_returns=[0.0, 0.0])
    assert one["branch"] == [["leave-one-out"]] * 2
    assert one["step_part"] == [[3.0], [-3.0]]


def test_maxrl_weighs_rare_success() -> None:
    got = advantages("maxrl", None, groups=["t"] * 4 + ["u", "v", "v"], lengths=[1] * 7,
                     episode_returns=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])  # fmt: skip
    assert got["advantages"] == pytest.approx([3.0, -1.0, -1.0, -1.0, 0.0, 0.0, 0.0])
    assert got["advantages_original"][4] is None
    unguarded = advantages("maxrl", {"guarded": False}, groups=["t"], lengths=[1], episode_returns=[1.0])
    assert unguarded["advantages"] == pytest.approx([1e6])
    with pytest.raises(ConfigError, match=r"outcome -0\.1 is negative"):
        advantages("maxrl", None, groups=["t"], lengths=[1], episode_returns=[-0.1])


def test_dr_grpo_and_reinforce_pp() -> None:
    outcomes = {"groups": ["t", "t", "u"], "rewards": [[0.0, 3.0], [1.0], [5.0]]}
    assert advantages("dr_grpo", None, **outcomes)["advantages"] == [1.0, -1.0, 5.0]
    tokens = {**outcomes, "token_counts": [[1, 2], [1], [1]]}
    values = [3.0, 3.0, 3.0, 1.0, 5.0]  # of the tokens
    std = math.sqrt(sum((value - 3) ** 2 for value in values) / 4 + 1e-8)
    got = advantages("reinforce_pp", None, **tokens)["advantages"]
    assert got == close([[0.0, 0.0], [-2 / std], [2 / std]])
    # less the task's mean: 1, 1, 1, -1 and, alone, 5
    values = [1.0, 1.0, 1.0, -1.0, 5.0]
    mean = 7 / 5
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / 4 + 1e-8)
    got = advantages("reinforce_pp_baseline", None, **tokens)["advantages"]
    assert got == close([[-0.4 / std] * 2, [-2.4 / std], [3.6 / std]])
    # with a discount the tokens of the last step see 3, then 1.5 (its first), 0.75 (the step before)
    one = {"groups": ["t"], "rewards": [[0.0, 3.0]], "token_counts": [[1, 2]]}
    values = [0.75, 1.5, 3.0]
    std = math.sqrt(sum((value - 1.75) ** 2 for value in values) / 2 + 1e-8)
    assert advantages("reinforce_pp", {"gamma": 0.5}, **one)["advantages"] == close([[-1 / std, 1.25 / std]])


def test_mt_grpo_compares_with_rollouts_that_have_a_step() -> None:
    """10 and 0 standardised: 5 / sqrt(50); the third rollout broke off before its first step."""
    given = {"groups": ["t"] * 3, "rewards": [[10.0], [0.0], []], "episode_returns": [10.0, 0.0, 0.0]}
    got = advantages("mt_grpo", None, **given)["advantages"]
    assert [row for row in got if len(row)] == [
        pytest.approx([0.5**0.5], abs=1e-4),  # epsilon is in the quotient
        pytest.approx([-(0.5**0.5)], abs=1e-4),
    ]


def test_mt_grpo_adds_turns_and_never_sums_them() -> None:
    z = 1 / math.sqrt(2)  # of two values, times their distance over (distance * sqrt(.5) + 1e-4)
    given = {"groups": ["t", "t"], "lengths": [2, 1], "turn_rewards": [1.0, 0.0]}
    got = advantages("mt_grpo", None, **given, outcome_rewards=[0.0, 1.0], first_step_after_tool=[1, None])
    assert got["advantages"][0] == pytest.approx([0.0, -z], abs=2e-4)
    assert got["advantages"][1] == pytest.approx([0.0], abs=1e-9)
    many = {
        "groups": ["t", "t"],
        "turn_rewards": [[1.0, 9.0], [0.0, 1.0, 5.0]],
        "outcome_rewards": [1.0, 1.0],
    }
    rows = advantages("mt_grpo_multi", {"coef": 2.0}, **many)["advantages"]
    # the last step of each is the answer, and the second turn is alone at its number
    assert rows[0] == pytest.approx([2 * z, 0.0], abs=4e-4)
    assert rows[1] == pytest.approx([-2 * z, 0.0, 0.0], abs=4e-4)


def test_hcapo_raises_what_the_end_makes_likely() -> None:
    inputs = {"groups": ["t"], "won": [True], "episode_returns": [4.0]}
    logs = [[[math.log(0.5)], [math.log(0.25), math.log(0.25)], []]]
    how = {"temperature": 1.0, "gamma": 0.5, "clip_low": 0.0, "clip_high": 9.0, "normalize": "mean"}
    got = advantages("hcapo", how, **inputs, hindsight_log_prob=logs)
    assert got["ratios"] == close([[4 / 3, 2 / 3, 1.0]])  # the mean is of the two answers with tokens
    assert got["hindsight_returns"] == close([[4 / 3, 4 / 3, 4.0]])
    smooth = advantages("hcapo", {**how, "smoothing": 0.5}, **inputs, hindsight_log_prob=logs)
    assert smooth["hindsight_returns"] == close([[4 / 3, 8 / 3, 4.0]])
    assert got["advantages"] == close([[4.0, 4.0, 4.0 + 4 - 20 / 9]])  # one trajectory keeps its return
    harm = advantages("hcapo", {**how, "do_no_harm": False}, **inputs, hindsight_log_prob=logs)
    assert harm["advantages"] == close([[4 + 4 / 3 - 20 / 9, 4 + 4 / 3 - 20 / 9, 4.0 + 4 - 20 / 9]])
    never = advantages("hcapo", how, **inputs, hindsight_log_prob=[[[-math.inf], [-1.0], [-1.0]]])
    assert never["ratios"] == close([[0.0, 1.5, 1.5]]), "minus infinity is probability 0"


def test_proxmo_compares_like_observations() -> None:
    table = tfidf(["red box", "red box", "a door", "x"], 10)
    assert (table @ table.T).tolist() == [pytest.approx(row) for row in
                                          [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]  # fmt: skip  # noqa: E501
    inputs = {"groups": ["t", "t"], "rewards": [[1.0], [0.0]], "texts": [["red box"], ["red box"]],
              "won": [True, False], "episode_returns": [1.0, 0.0]}  # fmt: skip
    plain = advantages("proxmo", {"modulate": False}, **inputs)
    assert plain["step_part"] == close([[0.5], [-0.5]])
    assert plain["episode_part"] == close([[0.5], [-0.5]])
    far = advantages("proxmo", {"modulate": False, "temperature": 0.01},
                     **inputs | {"texts": [["red box"], ["a door"]]})  # fmt: skip
    assert far["step_part"] == close([[0.0], [0.0]]), "nothing is like it, so it is its own baseline"
    b = 0.05 / (1 / (1 + math.exp(-1)) - 0.5)
    up = 1 + b * (1 / (1 + math.exp(-(0.5**4))) - 0.5)
    assert advantages("proxmo", None, **inputs)["episode_part"][0] == pytest.approx([0.5 * up])


def test_proxmo_takes_wins_from_won_also_beside_scores() -> None:
    """A lost trajectory with score .75 is softened, a won one with .5 is raised: p is the mean score."""
    inputs = {"groups": ["t", "t"], "rewards": [[0.0], [0.0]], "texts": [["box"], ["box"]]}
    how = {"target_range": 0.2}
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    b = 0.2 / (sigmoid(1) - 0.5)
    lost = advantages(
        "proxmo", how, **inputs, won=[False, False], scores=[0.75, 0.0], episode_returns=[7.5, 0.0]
    )
    down = 1 + b * (sigmoid(-(0.375**4)) - 0.5)
    assert lost["episode_part"] == close([[3.75 * down], [-3.75 * down]])
    won = advantages(
        "proxmo", how, **inputs, won=[True, False], scores=[0.5, 0.4], episode_returns=[5.0, 4.0]
    )
    up, down = (1 + b * (sigmoid(x) - 0.5) for x in (0.55**4, -(0.45**4)))
    assert won["episode_part"] == close([[0.5 * up], [-0.5 * down]])


def test_judged_values_take_the_place_of_outcomes() -> None:
    """P of B: .3 and .1; C .6. A, the start, is 0 also where it is reached again. A win's end is worth 10."""
    judged = [[0.0, 0.3, 0.6, 0.9], [0.0, 0.1, 0.2, 0.05]]
    a, b, c = 0.0, 2.0, 6.0
    how = CreditSettings(credit="g2po", value_source="oracle")
    got = advantages("g2po", how, **LINE, judged=judged)
    assert got["node_values"] == close([[a, b, c], [a, b, a]])
    graph = advantages(
        "graphgpo", CreditSettings(credit="graphgpo", value_source="oracle"), **LINE, judged=judged
    )
    assert graph["step_returns"] == close([[b, c, 10.0], [b, a, a]])
    gagpo = advantages("gagpo", CreditSettings(credit="gagpo", value_source="oracle"), **LINE, judged=judged)
    assert gagpo["state_values"] == close([[a, b, c], [a, b, a]])
    half = advantages("g2po", how, **LINE, judged=[None, None])
    outcome = advantages("g2po", CreditSettings(credit="g2po"), **LINE)
    assert half == outcome, "what nothing judged keeps the value of the outcomes"


@pytest.mark.parametrize(
    ("rule", "settings", "inputs", "error", "message"),
    [
        ("graphpo", {}, LINE, UnknownNameError, "did you mean 'graphgpo'"),
        ("graphgpo", {"gama": 1}, LINE, ConfigError, "graphgpo: unknown setting 'gama'.*did you mean 'gamma'"),  # noqa: E501
        ("graphgpo", {"gamma": 2}, LINE, ConfigError, "graphgpo: gamma: .*less than or equal to 1"),
        ("graphgpo", {}, {**LINE, "wonn": []}, ConfigError, "unknown input 'wonn'.*did you mean 'won'"),
        ("graphgpo", {}, {"groups": ["t"], "anchors": [["A"]]}, ConfigError, "'graphgpo' needs the input 'reached'"),  # noqa: E501
        ("gagpo", {}, {"anchors": [["A"]]}, ConfigError, "needs the input 'groups'"),
        ("gagpo", {}, {**LINE, "rewards": [[1.0]]}, ConfigError, "rewards has 1 entries and groups 2"),
        ("gagpo", {}, {**LINE, "rewards": [[1.0], [1.0] * 3]}, ConfigError, "trajectory 0 has 3 anchors and 1 steps"),  # noqa: E501
        ("gagpo", {}, {**LINE, "rewards": [[math.nan] * 3, [1.0] * 3]}, ConfigError, "rewards: value 0 is nan"),  # noqa: E501
        ("hcapo", {}, {"groups": ["t"], "episode_returns": [1.0], "hindsight_log_prob": [[[math.nan]]]}, ConfigError, r"hcapo: hindsight_log_prob\[0\]\[0\]\[0\] holds nan"),  # noqa: E501
        ("mt_grpo", {}, {"groups": ["t"], "lengths": [1], "outcome_rewards": [math.inf], "turn_rewards": [0.0]}, ConfigError, "outcome_rewards: value 0 is inf"),  # noqa: E501
        ("mt_grpo", {}, {"groups": ["t"], "outcome_rewards": [0.0], "turn_rewards": [[0.0, math.nan]]}, ConfigError, "turn_rewards: value 1 is nan"),  # noqa: E501
        ("g2po", {}, {**LINE, "judged": [None, [0.0, 0.1, math.nan, 1.0]]}, ConfigError, "judged: value 2 is nan"),  # noqa: E501
        ("progress_advantage", {"beta": math.nan}, {"log_prob": [[-1.0]], "ref_log_prob": [[-1.0]]}, ConfigError, "beta: value 0 is nan"),  # noqa: E501
        ("maxrl", {}, {**LINE, "won": ["1", "0"]}, ConfigError, "won: every value must be a number .*'1' is text"),  # noqa: E501
        ("gigpo", {}, {**LINE, "valid": [["no"] * 3, [True] * 3]}, ConfigError, "valid: .*'no' is text"),
        ("gigpo", {}, {**LINE, "rewards": [1.0, 2.0]}, ConfigError, "gigpo: rewards of trajectory 0 is '1.0'; it must be a list"),  # noqa: E501
        ("pace", {}, {**LINE, "actions": ["abc", "abc"]}, ConfigError, "pace: actions of trajectory 0 is 'abc'; it must be a list"),  # noqa: E501
        ("grpo", {}, {"groups": ["t"], "lengths": ["2"], "episode_returns": [1.0]}, ConfigError, "lengths: .*'2' is text"),  # noqa: E501
        ("grpo", {}, {"groups": ["t"], "lengths": [2], "episode_returns": [[1.0]]}, ConfigError, "episode_returns: .*got lists of 1"),  # noqa: E501
        ("hcapo", {}, {"groups": ["t"], "episode_returns": [1.0], "hindsight_log_prob": [[["-1"]]]}, ConfigError, "holds '-1', which is no log-prob"),  # noqa: E501
        ("progress_advantage", {"beta": "2"}, {"log_prob": [[-1.0]], "ref_log_prob": [[-1.0]]}, ConfigError, "beta: .*'2' is text"),  # noqa: E501
        ("progress_advantage", {}, {"log_prob": [-1.0], "ref_log_prob": [-1.0]}, ConfigError, "log_prob of step 1 is '-1.0'; it must be a list"),  # noqa: E501
        ("dapo_extras", {"max_length": 3, "buffer": 1, "factor": "1"}, {"lengths": [1], "groups": ["t"], "episode_returns": [1.0]}, ConfigError, "dapo_extras: factor: .*'1' is text"),  # noqa: E501
        ("dapo_extras", {"max_length": 3, "buffer": 1, "factor": 1}, {"lengths": [1], "groups": ["t"], "episode_returns": ["1"]}, ConfigError, "returns: .*'1' is text"),  # noqa: E501
        ("hcapo", {"alpha": 0.5}, LINE, ConfigError, "hcapo: the setting 'alpha' has no effect"),
        ("maxrl", {"history": 7}, LINE, ConfigError, "maxrl: the setting 'history' has no effect"),
        ("dr_grpo", {"shaping": "graph"}, LINE, ConfigError, "dr_grpo: the setting 'shaping' has no effect"),
        ("dr_grpo", {"credit": "gigpo"}, LINE, ConfigError, "dr_grpo: the setting 'credit' has no effect"),
        ("gigpo", {"invalid_penalty": 1}, LINE, ConfigError, "gigpo: the setting 'invalid_penalty' has no effect"),  # noqa: E501
        ("dapo_extras", {"max_length": 3}, {"lengths": [1]}, ConfigError, "dapo_extras takes .*'groups' is missing"),  # noqa: E501
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(rule: str, settings: Any, inputs: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        advantages(rule, settings, **inputs)


def test_a_rule_asks_for_what_it_reads() -> None:
    @register_credit("shy")
    def shy(rewards, groups, anchors, settings, episode_returns, *, won, reached):  # type: ignore[no-untyped-def]
        return [[float(w) + (key == "A") for key in row] for w, row in zip(won, reached, strict=True)]

    @register_credit("whole")
    def whole(inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
        return {"advantages": [settings.gamma * w for w in inputs.need("won")], "seen": inputs.actions}

    assert advantages("shy", None, **LINE)["advantages"] == [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    got = advantages("whole", {"gamma": 0.25}, **LINE)
    assert got == {"advantages": [0.25, 0.0], "seen": LINE["actions"]}

    @register_credit("modest")
    def modest(  # type: ignore[no-untyped-def]
        rewards, groups, anchors, settings, episode_returns, *, won=None, scores=(), weight=2.0, bonus=0.5
    ):
        known = [0.0] * len(rewards) if won is None else won
        return [[weight * w + bonus + len(scores)] * len(row) for w, row in zip(known, rewards, strict=True)]

    rewards = {"groups": ["t", "t"], "rewards": [[0.0], [0.0, 1.0]]}
    assert advantages("modest", None, **rewards)["advantages"] == [[0.5], [0.5, 0.5]]
    told = advantages("modest", None, **rewards, won=[True, False], scores=[0.5, 0.5])
    assert told["advantages"] == [[4.5], [2.5, 2.5]]
    assert (reads("modest"), demands("modest")) == (("won", "scores"), ())
    assert (reads("shy"), demands("shy")) == (("won", "reached"), ("won", "reached"))

    @register_credit("lone")
    def lone(
        inputs: CreditInputs, settings: CreditSettings, *, weight: float = 3.0, bonus: float = 1.0
    ) -> Any:
        return {"advantages": [weight + bonus] * len(inputs.groups)}

    assert advantages("lone", None, groups=["t"])["advantages"] == [4.0]
    with pytest.raises(ConfigError, match="'curious' asks for an unknown input 'wins'"):
        register_credit("curious")(lambda rewards, groups, anchors, settings, episode_returns, *, wins: [])
    with pytest.raises(ConfigError, match=r"must take \(inputs, settings\), or .*it takes a, b, c"):
        register_credit("odd")(lambda a, b, c: [])
