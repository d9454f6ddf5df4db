"""Losses of a user's own: what is registered is found by name, and what is wrong with one is named."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import repro_rl
from repro_rl.config import load_config
from repro_rl.errors import ConfigError, UnknownNameError
from repro_rl.losses import LOSS_NAMES, LossTokens, PolicyLoss, evaluate, row_means
from repro_rl.losses.functions import check_loss, functions_of
from repro_rl.losses.settings import LossSection

UP = math.log(2.0)  # the log-ratio of r = 2
ONE: dict[str, Any] = {"log_prob": [[UP - 1]], "old_log_prob": [[-1.0]], "advantages": [[3.0]]}


def beyond(tokens: LossTokens, *, clip_high: float = 0.2, weight: float = 1.0) -> torch.Tensor:
    return tokens.ratio > 1 + clip_high


@pytest.fixture
def mine() -> None:
    @repro_rl.register_loss("mine", clipped=beyond)
    def mine(tokens: LossTokens, *, clip_high: float = 0.2, weight: float = 1.0) -> torch.Tensor:
        """A bounded ratio, weighed. Nobody has published it."""
        return -weight * tokens.ratio.clamp(max=1 + clip_high) * tokens.advantages


def test_its_settings_have_the_values_of_its_parameters_or_those_given(mine: None) -> None:
    assert evaluate("mine", **ONE)["loss"] == pytest.approx(-3.6)
    assert evaluate("mine", {"clip_high": 0.5, "weight": 2.0}, **ONE)["loss"] == pytest.approx(-9.0)
    given = ["train.loss.name=mine", "train.loss.clip_high=0.5", "train.loss.settings.weight=2"]
    section = load_config("sokoban-tiny", given).train.loss
    assert section.values(0.3) == {"clip_high": 0.5, "weight": 2}
    assert LossSection(name="mine").values(0.3) == {"clip_high": 0.2, "weight": 1.0}


def test_tokens_beyond_a_bound_are_counted_where_it_says_which(mine: None) -> None:
    tokens = LossTokens(
        torch.tensor([UP, 0.0]), torch.zeros(2), torch.ones(2), torch.zeros(2, dtype=torch.int64)
    )
    assert functions_of("mine").clipped(tokens, clip_high=0.2, weight=1.0).tolist() == [True, False]
    repro_rl.register_loss("silent")(lambda tokens: -tokens.ratio * tokens.advantages)
    assert functions_of("silent").clipped(tokens).tolist() == [False, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.loss.name=mime"], r"train\.loss\.name: Unknown policy loss 'mime'; did you mean 'mine'\?"),
        (["train.loss.name=mime"], r"Known: cispo, .*, mine, .*plugins=\[MODULE\]"),
        (["train.loss.name=mine", "train.loss.clip_low=0.2"], "'mine' does not use clip_low"),
        (
            ["train.loss.clip_high=0.2", "train.loss.name=sapo"],
            "only cispo, dppo_kl, dppo_tv, gspo, mine, ppo",
        ),
        (
            ["train.loss.name=mine", "train.loss.settings.wait=2"],
            "'mine' has no setting 'wait'; did you mean",
        ),
        (["train.loss.name=mine", "train.loss.settings.clip_high=1"], "given as train.loss.clip_high"),
        (["train.loss.settings.weight=2"], r"'ppo_clip' has no setting 'weight'\. Known: none"),
        (["train.clip=0.3", "train.loss.name=mine"], "'mine' does not read it; leave it out"),
    ],
)
def test_wrong_settings_are_named(mine: None, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("sokoban-tiny", settings)


def test_wrong_settings_of_a_call_are_named(mine: None) -> None:
    with pytest.raises(ConfigError, match="mine: unknown setting wait"):
        evaluate("mine", {"wait": 2.0}, **ONE)
    with pytest.raises(ConfigError, match="'mine' does not use clip_low"):
        evaluate("mine", {"clip_low": 0.1}, **ONE)
    with pytest.raises(UnknownNameError, match="did you mean 'mine'"):
        evaluate("mime", **ONE)


def test_a_name_belongs_to_one_loss(mine: None) -> None:
    def other(tokens: LossTokens) -> torch.Tensor:
        return -tokens.ratio * tokens.advantages

    for name in ("ppo_clip", "mine"):
        with pytest.raises(ConfigError, match=f"policy loss '{name}' is registered twice; choose another"):
            repro_rl.register_loss(name)(other)
    with pytest.raises(ConfigError, match=r"'opid': losses\.evaluate has that name already"):
        repro_rl.register_loss("opid")
    for _ in range(2):  # the same once more is no conflict
        repro_rl.register_loss("other")(other)
    assert LOSS_NAMES.get("other") == PolicyLoss.of(other) == PolicyLoss({}, function=other)


def two(tokens: Any, more: Any) -> Any: ...
def none() -> Any: ...
def free(tokens: Any, **how: Any) -> Any: ...
def rows(*tokens: Any) -> Any: ...
def bare(tokens: Any, *, weight: float) -> Any: ...
def scaled(tokens: Any, *, scale: float = 1.0) -> Any: ...
def narrow(tokens: Any, *, weight: float = 2.0) -> Any: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            two,
            r"'bad' must take \(tokens, \*, SETTING=VALUE, \.\.\.\); it takes \(tokens: Any, more: Any\)",
        ),
        (none, r"it takes \(\)"),
        (free, "it takes .*how"),
        (rows, r"it takes \(\*tokens"),
        (bare, "'bad': give its setting 'weight' a default"),
        (scaled, "a setting 'scale', which is one of train.loss itself"),
        (narrow, "has the settings weight=2.0, but its clipped has clip_high=0.2, weight=1.0"),
    ],
)
def test_functions_of_another_form_are_refused(function: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        repro_rl.register_loss("bad", clipped=beyond)(function)
    assert "bad" not in LOSS_NAMES.names()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda tokens: None, r"'bad' gave NoneType None; .* each of the 6 tokens, a tensor of floats \[6\]"),
        (lambda tokens: -tokens.ratio.mean(), r"gave a tensor of float64 \[\]; .*train\.loss\.aggregation"),
        (lambda tokens: -tokens.ratio[:2], r"gave a tensor of float64 \[2\]"),
        (lambda tokens: tokens.ratio > 1, r"gave a tensor of bool \[6\]"),
        (lambda tokens: -tokens.ratio.detach() * tokens.advantages, "without gradient; compute it from"),
        (lambda tokens: tokens.rato, r"'bad' failed: AttributeError: .* \(test_named\.py, line \d+\)"),
        (lambda tokens: tokens.ratio / tokens.advantages, "gives NaN or infinity"),
        (lambda tokens: tokens.ratio * tokens.advantages**2, "not linear in positive advantages"),
        (lambda tokens: tokens.ratio + tokens.advantages, "not linear in positive advantages"),
        (
            lambda tokens: -tokens.ratio * tokens.advantages * (1 + tokens.advantages.clamp(max=0)),
            "not linear in negative advantages",
        ),
    ],
)
def test_what_training_cannot_use_is_refused_before_it_begins(function: Any, message: str) -> None:
    repro_rl.register_loss("bad")(function)
    with pytest.raises(ConfigError, match=message):
        repro_rl.LossSettings(0.2, repro_rl.load_config(None).train.kl, 0.0, 1.0, LossSection(name="bad"))


@pytest.mark.parametrize(("result", "shown"), [(None, "NoneType None"), (torch.zeros(6), r"float32 \[6\]")])
def test_what_says_which_tokens_are_clipped_is_checked_too(result: Any, shown: str) -> None:
    repro_rl.register_loss("bad", clipped=lambda tokens: result)(lambda t: -t.ratio * t.advantages)
    with pytest.raises(ConfigError, match=rf"clipped of the policy loss 'bad' gave .*{shown}; .*bools \[6\]"):
        check_loss(LossSection(name="bad"))


def test_a_ratio_of_the_row_and_a_factor_by_sign_are_linear_enough() -> None:
    @repro_rl.register_loss("by-row")
    def by_row(tokens: LossTokens, *, negative: float = 0.5) -> torch.Tensor:
        advantages = tokens.advantages.clamp(min=0) + negative * tokens.advantages.clamp(max=0)
        return -row_means(tokens.log_prob - tokens.old_log_prob, tokens.row).exp() * advantages

    check_loss(LossSection(name="by-row"))
    got = evaluate(
        "by-row",
        log_prob=[[UP - 1, -UP - 1], [UP - 1]],
        old_log_prob=[[-1.0, -1.0], [-1.0]],
        advantages=[[1.0, 1.0], [-2.0]],
    )
    assert got["loss"] == pytest.approx((-1.0 - 1.0 + 2.0) / 3)  # ratios 1 and 2; the last advantage is -1
