"""The losses on numbers worked by hand, and what the entry refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from repro_rl.errors import ConfigError, UnknownNameError
from repro_rl.losses import (
    LossTokens,
    aggregate,
    evaluate,
    gated_distillation,
    kl_estimate,
    signed_distillation,
)

UP, DOWN = math.log(2.0), math.log(0.5)  # log-ratios: r = 2 and r = 0.5


def one(name: str, difference: float, advantage: float, **settings: Any) -> tuple[float, float]:
    """The loss and its gradient of a single token with the old log-prob -1."""
    got = evaluate(
        name, settings, log_prob=[[difference - 1]], old_log_prob=[[-1.0]], advantages=[[advantage]]
    )
    return got["loss"], got["gradient"][0][0]


def test_ppo_clips_in_the_direction_of_the_update() -> None:
    assert one("ppo_clip", 0.0, 3.0) == pytest.approx((-3.0, -3.0))
    assert one("ppo_clip", UP, 3.0) == pytest.approx((-3.6, 0.0))
    assert one("ppo_clip", UP, 3.0, clip_high=0.28) == pytest.approx((-3.84, 0.0))
    assert one("ppo_clip", DOWN, 3.0) == pytest.approx((-1.5, -1.5))
    assert one("ppo_clip", DOWN, -3.0) == pytest.approx((2.4, 0.0))
    assert one("ppo_clip", UP, -3.0) == pytest.approx((6.0, 6.0))
    assert one("ppo_clip", UP, -3.0, dual_clip=1.5) == pytest.approx((4.5, 0.0))


def test_the_others_on_one_token() -> None:
    log_prob = UP - 1
    assert one("cispo", UP, 3.0) == pytest.approx((-1.2 * 3 * log_prob, -3.6))
    assert one("cispo", UP, -3.0, clip_high=4.0) == pytest.approx((6 * log_prob, 6.0))
    assert one("sapo", 0.0, 3.0) == pytest.approx((-6.0, -3.0))
    # p goes from .368 to .736: too far for A > 0, not for A < 0
    assert one("dppo_tv", UP, 3.0) == pytest.approx((0.0, 0.0))
    assert one("dppo_tv", UP, -3.0) == pytest.approx((6 * log_prob, 6.0))
    assert one("dppo_kl", UP, 3.0) == pytest.approx((0.0, 0.0))
    assert one("dppo_kl", UP, -3.0, ratio_cap=1.5) == pytest.approx((4.5 * log_prob, 4.5))


def test_sapo_s_gate_falls_on_both_sides_and_sooner_where_the_advantage_is_negative() -> None:
    """f = 4/tau sigma(tau (r - 1)), its slope 4 sigma (1 - sigma), times r A."""

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for difference, r in ((UP, 2.0), (DOWN, 0.5)):
        for advantage, tau in ((3.0, 1.0), (-3.0, 1.05)):
            gate = sigma(tau * (r - 1))
            expected = (-advantage * 4 / tau * gate, -advantage * 4 * gate * (1 - gate) * r)
            assert one("sapo", difference, advantage) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["dppo_tv", "dppo_kl"])
def test_dppo_keeps_what_has_moved_little_or_moves_back(name: str) -> None:
    """From p = .368. Thresholds: .15 in probability, .05 in KL."""
    near, far = math.log(1.3), math.log(1.5)
    assert one(name, near, 3.0) == pytest.approx((-3.9 * (near - 1), -3.9))  # .110, KL .025
    assert one(name, far, 3.0) == pytest.approx((0.0, 0.0))  # .184, KL .068
    assert one(name, DOWN, -3.0) == pytest.approx((0.0, 0.0))  # -.184, KL .094
    assert one(name, DOWN, 3.0) == pytest.approx((-1.5 * (DOWN - 1), -1.5))  # moves back


def test_gspo_has_one_ratio_a_row() -> None:
    got = evaluate(
        "gspo", {"clip_low": 0.5, "clip_high": 0.5},
        log_prob=[[UP - 1, DOWN - 1], [UP - 1]], old_log_prob=[[-1.0, -1.0], [-1.0]],
        advantages=[[1.0, 1.0], [1.0]],
    )  # fmt: skip
    # s is 1 in the first row; 2, clipped to 1.5, in the second
    assert got["loss"] == pytest.approx((-1.0 - 1.5) / 2)
    assert [x for row in got["gradient"] for x in row] == pytest.approx([-0.25, -0.25, 0.0])


def test_aggregation_leaves_out_rows_without_tokens() -> None:
    got = evaluate("loss_aggregation", {"scale": 4}, token_losses=[[1.0, 2.0, 3.0], [], [6.0]])
    assert got == pytest.approx({
        "token-mean": 3.0, "seq-mean-token-mean": 4.0, "seq-mean-token-sum": 6.0,
        "seq-mean-token-sum-norm": 1.5, "token-sum": 12.0,
    })  # fmt: skip
    assert set(evaluate("loss_aggregation", token_losses=[[], []]).values()) == {0.0}


def test_the_gate_only_raises_and_the_signed_form_may_lower() -> None:
    rows = {"log_prob": [[-1.0, -1.0], [-1.0]], "teacher_log_prob": [[-0.5, -2.0], [0.0]]}
    got = evaluate("gated_distillation", {"gate_beta": 1.0}, **rows, rows_used=[True, False])
    gates = [1 / (1 + math.exp(-0.5)), 1 / (1 + math.e)]
    assert got["gradient"][0] == pytest.approx([-gates[0] / 2, -gates[1] / 2])
    assert got["gradient"][1] == [0.0]
    assert got["loss"] == pytest.approx((gates[0] * 0.5 - gates[1]) / 2)
    assert (got["gate_mean"], got["gap_mean"]) == pytest.approx((sum(gates) / 2, -0.25))
    signed = evaluate("opid", None, **rows, old_log_prob=rows["log_prob"])
    assert signed["gradient"][0] == pytest.approx([-0.5 / 3, 1 / 3])
    none = evaluate("gated_distillation", None, **rows, rows_used=[False, False])
    assert (none["loss"], none["gate_mean"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "settings", "inputs", "error", "message"),
    [
        ("ppo_clp", {}, {}, UnknownNameError, "did you mean 'ppo_clip'"),
        ("ppo_clip", {}, {"log_prob": [[0.0]]}, ConfigError, "ppo_clip needs the input 'old_log_prob'"),
        ("loss_aggregation", {"clip": 1}, {"token_losses": []}, ConfigError, "unknown setting clip"),
        ("kl_estimators", {}, {"log_prob": [[0.0]], "ref_log_prob": [[]]}, ConfigError, "other lengths"),
        ("loss_aggregation", {}, {"token_losses": [], "rows": 1}, ConfigError, "unknown input rows"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(name: str, settings: Any, inputs: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(name, settings, **inputs)


ONE: dict[str, Any] = {"log_prob": [[-1.0]], "old_log_prob": [[-1.0]], "advantages": [[1.0]]}


@pytest.mark.parametrize(
    ("name", "how", "changed", "message"),
    [
        ("sapo", {"tau_pos": 0.0}, {}, "sapo: tau_pos: .*greater than 0"),
        ("ppo_clip", {"clip_low": -0.1}, {}, "clip_low: .*greater than or equal to 0"),
        ("ppo_clip", {"dual_clip": 0.5}, {}, "dual_clip: .*greater than 1"),
        ("ppo_clip", {"tau_pos": 1.0}, {}, "'ppo_clip' does not use tau_pos"),
        ("ppo_clip", {"aggregation": "tokenmean"}, {}, "aggregation: "),
        ("ppo_clip", {"aggregation": "seq-mean-token-sum-norm"}, {}, "needs scale"),
        ("gspo", {"name": "sapo"}, {}, "unknown setting name"),
        (
            "ppo_clip",
            {},
            {"log_prob": [[float("nan")]]},
            r"log_prob\[0\]\[0\] holds nan, which is not finite",
        ),
        ("ppo_clip", {}, {"advantages": [[-math.inf]]}, r"advantages\[0\]\[0\] holds -inf, which is not"),
        ("ppo_clip", {}, {"log_prob": [[0.002]]}, r"log_prob\[0\]\[0\] holds 0\.002, which is no log-prob"),
        ("ppo_clip", {}, {"old_log_prob": [[1]]}, r"old_log_prob\[0\]\[0\] holds 1\.0, which is no log-prob"),
        ("ppo_clip", {}, {"log_prob": [-1.0]}, "log_prob must be a list of rows"),
        ("ppo_clip", {}, {"advantages": [["much"]]}, "advantages must be rows of numbers"),
        ("ppo_clip", {}, {"advantages": [["1"]]}, "advantages must be rows of numbers: there is text"),
        ("ppo_clip", {}, {"advantages": ["1"]}, "advantages must be rows of numbers: there is text"),
        (
            "ppo_clip",
            {"aggregation": "seq-mean-token-sum-norm", "scale": "2"},
            {},
            "scale is '2'; it must be a number of tokens above 0",
        ),
    ],
)
def test_wrong_settings_and_numbers_are_named(
    name: str, how: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(name, how, **{**ONE, **changed})


def test_self_distillation_is_checked_as_well() -> None:
    teacher = {"log_prob": [[-1.0], [-2.0]], "teacher_log_prob": [[-0.5], [-0.5]]}
    old = {"old_log_prob": [[-1.0], [-2.0]]}
    with pytest.raises(ConfigError, match="unknown weight 'deltaa'; did you mean 'delta'"):
        evaluate("opid", {"weight": "deltaa"}, **teacher, **old)
    with pytest.raises(ConfigError, match=r"clip: .*greater than 0"):
        evaluate("opid", {"clip": 0.0}, **teacher, **old)
    with pytest.raises(ConfigError, match=r"gate_beta: .*greater than 0"):
        evaluate("gated_distillation", {"gate_beta": -1.0}, **teacher)
    refused: list[tuple[str, str, Any]] = [
        *(
            ("gated_distillation", name, value)
            for name, value in (("coef", 0.5), ("clip", 1.0), ("on", "won"))
        ),
        *(("opid", name, value) for name, value in (("coef", 0.5), ("gate_beta", 1.0), ("text", "values"))),
    ]
    for name, setting, value in refused:
        with pytest.raises(ConfigError, match=f"{name}: the setting '{setting}' has no effect"):
            evaluate(name, {setting: value}, **teacher, **(old if name == "opid" else {}))
    with pytest.raises(ConfigError, match="scale has no effect with aggregation 'token-mean'"):
        evaluate("gated_distillation", {"scale": 2.0}, **teacher)
    with pytest.raises(ConfigError, match="rows_used has 1 entries for 2 rows"):
        evaluate("gated_distillation", {}, **teacher, rows_used=[True])


def test_tensors_of_unequal_shapes_are_refused() -> None:
    """torch would spread [2, 1] over [2], and every token would get every advantage."""
    one, wide = torch.zeros(2), torch.zeros(2, 1)
    rows = torch.zeros(2, dtype=torch.int64)
    for call in (
        lambda: LossTokens(one, one, wide, rows),
        lambda: kl_estimate("k1", one, wide),
        lambda: gated_distillation(one, wide),
        lambda: signed_distillation(one, one, wide),
        lambda: aggregate(wide, rows, "token-mean"),
    ):
        with pytest.raises(ConfigError, match=r"must have one shape, a value for each token: .*\(2, 1\)"):
            call()
    with pytest.raises(ConfigError, match=r"log_prob has the shape \(2, 1\); give one row of tokens"):
        LossTokens(wide, wide, wide, wide.long())


def test_text_is_no_choice_of_rows() -> None:
    rows = {"log_prob": [[-1.0], [-1.0]], "teacher_log_prob": [[-1.0], [-1.0]]}
    with pytest.raises(ConfigError, match="rows_used must hold True or False for each row"):
        evaluate("gated_distillation", None, **rows, rows_used=["False", "True"])


def test_the_first_positive_log_prob_is_placed_in_its_row_and_rounding_is_none() -> None:
    rows: dict[str, Any] = {
        "log_prob": [[-1.0], [], [-2.0, 0.5, 0.7]],
        "ref_log_prob": [[-1.0], [], [-1.0] * 3],
    }
    with pytest.raises(
        ConfigError, match=r"kl_estimators: log_prob\[2\]\[1\] holds 0\.5, which is no log-prob"
    ):
        evaluate("kl_estimators", **rows)
    for name, other in (("gated_distillation", "teacher_log_prob"), ("kl_estimators", "ref_log_prob")):
        with pytest.raises(ConfigError, match=rf"{other}\[0\]\[1\] holds 0\.01"):
            evaluate(name, log_prob=[[-1.0, 0.0]], **{other: [[-1.0, 0.01]]})
    # A model in float32 or bfloat16 may give a little more than 0 to a token that is certain.
    got = evaluate("kl_estimators", log_prob=[[1e-3]], ref_log_prob=[[0.0]])
    assert got["k1"]["value"] == [[1e-3]]
    # Token losses and advantages are no log-probs.
    assert evaluate("loss_aggregation", token_losses=[[2.0, 4.0]])["token-mean"] == 3.0
