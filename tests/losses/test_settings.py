"""The settings of losses and self-distillation: what does not go together is named when they are read."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
import yaml

from repro_rl.config import METHODS, KlSection, TrainSection, dump_config, load_config, parse_config
from repro_rl.errors import ConfigError
from repro_rl.losses.aggregation import MODES, token_weight
from repro_rl.losses.entry import SIGNED
from repro_rl.losses.functions import LOSSES
from repro_rl.losses.named import PUBLISHED
from repro_rl.losses.settings import (
    GATE_BETA,
    OWN,
    DistillSection,
    LossSection,
)
from repro_rl.train.loss import KL_FORMS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.loss.name=ppo"], r"train\.loss\.name: .*did you mean 'ppo_clip'\?"),
        (
            ["train.loss.name=cispo", "train.loss.dual_clip=3"],
            "'cispo' does not use dual_clip .only ppo_clip",
        ),
        (["train.loss.name=sapo", "train.loss.clip_high=0.3"], "'sapo' does not use clip_high"),
        (["train.loss.tau_pos=1"], "'ppo_clip' does not use tau_pos .only sapo"),
        (["train.loss.ratio_cap=5"], "does not use ratio_cap .only dppo_kl, dppo_tv"),
        (["train.loss.clip_low=1.5"], "clip_low is 1.5, but a ratio is never below 0"),
        (["train.loss.dual_clip=0.5"], r"train\.loss\.dual_clip: .*greater than 1"),
        (
            ["train.clip=0.3", "train.loss.name=gspo"],
            r"train\.clip is 0.3, but .*'gspo' has bounds of its own",
        ),
        (
            ["train.clip=0.3", "train.loss={clip_low: 0.2, clip_high: 0.2}"],
            "train.loss has bounds of its own",
        ),
        (["train.clip=0.3", "method=gagpo"], "'gspo' has bounds of its own"),
        # A reward that the credit rule does not read, or a setting of another rule.
        (
            ["method=repro", "method.credit=maxrl"],
            "shaping 'retrospective' has no effect: .*'maxrl' reads no",
        ),
        (["method=repro", "method.credit=hcapo"], "alignment 'retrospective' has no effect: .*'hcapo'"),
        (
            ["method=repro-act", "method.credit=grpo"],
            "no rewards of steps.*choose a rule that does: gagpo, gigpo",
        ),
        (["method=oracle-act", "method.credit=graphgpo"], "shaping 'oracle' has no effect"),
        (
            ["method=l1", "method.credit=maxrl"],
            "format_coef has no effect.*rewards of steps or episode returns",
        ),
        (["method=maxrl", "method.overlong={factor: 1, max_length: 3}"], "overlong.factor has no effect"),
        (
            ["method=repro", "method.credit=hgpo", "method.shaping_in_episode=true"],
            "shaping_in_episode has no effect: .*'hgpo' reads no episode returns",
        ),
        (
            ["method=gigpo", "method.graphgpo.relative_distance=true"],
            r"graphgpo\.relative_distance has no effect .*'gigpo', only",
        ),
        (["method=grpo", "method.history=3"], "history has no effect .*'grpo', only with hgpo"),
        (["method=repro", "method.hindsight=reflection"], "hindsight has no effect .* only with hcapo"),
        (
            ["method=gigpo", "method.boundary_coef=0.1"],
            r"boundary_coef has no effect .*method\.progress true",
        ),
        (
            ["method=repro-act", "method.boundary_coef=0.2"],
            "boundary_coef has no effect .*no online estimate",
        ),
        (["method=gigpo", "method.value_gamma=0.5"], "value_gamma has no effect .*'graph_value'"),
        (["train.loss.scale=5"], "scale has no effect with aggregation 'token-mean'"),
        (
            ["method=gigpo", "method.value_source=oracle"],
            "'gigpo' has no table of state values; .*: g2po, gagpo",
        ),
        (["method=g2po", "method.value_source=retrospective"], r"'retrospective' needs method\.reflect true"),
        (["method=g2po", "method.value_source=progress_advantage"], "cannot stand here: its values"),
        (["method=repro", "method.alignment=progress_advantage"], "cannot stand here: its values"),
        (["method=gigpo", "method.shaping_form=raw"], "shaping_form is 'raw', but method.shaping is 'none'"),
        (["method=gigpo", "method.distill.coef=0.1"], r"needs method\.reflect true"),
        (["method=self-distill", "method.distill.clip=1"], "'gated' has no such bound"),
        (["method=self-distill-signed", "method.distill.gate_beta=1"], "no effect with form 'delta'"),
        (["method=hcapo", "method.hindsight=reflection"], r"'reflection' needs method\.reflect true"),
        (["method=hcapo", "method.hcapo.clip_low=2"], "must not exceed clip_high"),
        (["method.overlong.factor=1"], r"needs method\.overlong\.max_length"),
        (["method.overlong={factor: 1, max_length: 2, buffer: 3}"], "must not exceed max_length"),
        (["method.overlong={factor: 1, max_length: 999}"], "no answer is longer than prompt.action_tokens"),
        (["method.anchor_key=text"], "'state' or 'observation'"),
    ],
)
def test_what_does_not_go_together_is_named(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("sokoban-tiny", settings)


def test_a_part_of_a_methods_section_keeps_the_rest() -> None:
    distill = load_config(
        "sokoban-tiny", ["method=self-distill-signed", "method.distill.coef=0.2"]
    ).method.distill
    assert (distill.coef, distill.form) == (0.2, "delta")


def test_bounds_are_as_given_or_as_published() -> None:
    assert LossSection(name="gspo").values() == {"clip_low": 3e-4, "clip_high": 4e-4}
    assert LossSection(name="gspo", clip_high=0.1).values(0.3) == {"clip_low": 3e-4, "clip_high": 0.1}
    ppo = LossSection(clip_high=0.4).values(0.3)
    assert ppo == {"clip_low": 0.3, "clip_high": 0.4, "dual_clip": None}, "ppo_clip takes train.clip"


def test_every_loss_takes_what_is_published_of_it() -> None:
    assert tuple(LOSSES) == tuple(PUBLISHED)
    for name, loss in LOSSES.items():
        for function in (loss.loss, loss.clipped):
            assert set(inspect.signature(function).parameters) == {"tokens", *PUBLISHED[name].settings}
        assert PUBLISHED[name].aggregation in MODES
    clip = TrainSection().clip
    assert PUBLISHED["ppo_clip"].settings == {"clip_low": clip, "clip_high": clip, "dual_clip": None}
    assert set(OWN) == {field for loss in PUBLISHED.values() for field in loss.settings}


def test_what_settings_say_of_a_missing_number_is_what_is_published() -> None:
    told = {
        name: field.description.rpartition("null: ")[2]
        for section in (LossSection, DistillSection)
        for name, field in section.model_fields.items()
        if field.description is not None
    }
    assert (float(told["tau_pos"]), float(told["tau_neg"])) == tuple(PUBLISHED["sapo"].settings.values())
    assert {float(told["ratio_cap"])} == {
        PUBLISHED[name].settings["ratio_cap"] for name in ("dppo_tv", "dppo_kl")
    }
    assert float(told["gate_beta"]) == GATE_BETA


def test_names_of_aggregations_and_estimators_stand_once() -> None:
    assert get_args(LossSection.model_fields["aggregation"].annotation) == MODES
    assert get_args(KlSection.model_fields["form"].annotation) == (*KL_FORMS, "none")
    assert KL_FORMS == ("exact", "k1", "k2", "k3", "k1+", "k3+")
    assert get_args(DistillSection.model_fields["form"].annotation) == ("gated", *SIGNED)
    for mode in MODES:
        assert token_weight(mode, tokens=4, rows=2, scale=8)(2) > 0


def test_the_longest_answer_is_the_scale_where_none_is_given() -> None:
    loss = load_config("sokoban-tiny", ["train.loss.aggregation=seq-mean-token-sum-norm"]).train.loss
    assert loss.scale == 3.0  # prompt.action_tokens of the recipe
    given = ["train.loss={aggregation: seq-mean-token-sum-norm, scale: 7}"]
    assert load_config("sokoban-tiny", given).train.loss.scale == 7.0


def test_a_method_with_a_loss_of_its_own_sets_it_where_the_run_gives_none() -> None:
    ratio = LossSection(name="gspo", clip_low=0.2, clip_high=0.2, aggregation="seq-mean-token-mean")
    assert load_config("sokoban-tiny", ["method=gagpo"]).train.loss == ratio
    wider = load_config("sokoban-tiny", ["method=gagpo", "train.loss.clip_high=0.28"]).train.loss
    assert wider == LossSection(**{**ratio.model_dump(), "clip_high": 0.28})
    other = load_config("sokoban-tiny", ["method=gagpo", "train.loss.name=ppo_clip"]).train.loss
    assert other == LossSection()
    longer = load_config("sokoban-tiny", ["method=dr-grpo", "train.loss.scale=30"]).train.loss
    assert longer == LossSection(aggregation="seq-mean-token-sum-norm", scale=30)

    constant = load_config("alfworld-tiny", ["method=dr-grpo"])
    assert (constant.train.loss.aggregation, constant.train.loss.scale) == ("seq-mean-token-sum-norm", 4.0)
    assert parse_config(yaml.safe_load(dump_config(constant))) == constant
    assert load_config("sokoban-tiny", ["method=grpo"]).train.loss == LossSection()


@pytest.mark.parametrize(
    "given",
    [
        ["method=repro-act", "method.credit=grpo", "method.shaping_in_episode=true"],
        ["method=l1", "method.credit=reinforce_pp"],
        ["method=repro", "method.credit=pace", "method.advantage_on=split"],
        ["method=repro-act", "method.credit=grpo", "method.beta=0", "method.format_coef=0"],
        ["method=value-shaping", "method.value_gamma=0.5"],
        ["method=maxrl", "method.outcome=score"],
        ["method=gigpo", "train.clip=0.3", "train.loss.clip_high=0.4"],  # the other bound is train.clip
    ],
)
def test_what_has_an_effect_is_taken(given: list[str]) -> None:
    load_config("sokoban-tiny", given)


def test_every_shipped_method_is_free_of_settings_without_effect() -> None:
    for name in METHODS.names():
        load_config("sokoban-tiny", [f"method={name}"])
