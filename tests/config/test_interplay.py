"""Every setting of methods, losses and the KL says when it is read, and is refused where nothing reads it."""

from __future__ import annotations

import pytest

from repro_rl.config import METHODS, load_config, register_method
from repro_rl.config.interplay import READINGS, settings_in_table
from repro_rl.credit import CREDIT, register_credit
from repro_rl.errors import ConfigError
from repro_rl.study.definition import grid, load_study


def test_no_field_is_forgotten() -> None:
    """A new field needs a line in the table: when it is read, or None where it always is."""
    assert set(READINGS) == settings_in_table()


def test_what_recipes_give_for_all_methods_is_shared() -> None:
    """These are not refused, since one file serves all methods; a sweep leaves them out."""
    shared = {key.removeprefix("method.") for key, reading in READINGS.items() if reading and reading.shared}
    assert shared == {
        *("gamma", "omega", "normalize", "episode_baseline", "invalid_penalty", "anchor_key", "beta"),
        *("judge_pool", "judge_temperature", "reflect_share", "reflect_coef", "rehearsal", "rehearsal_coef"),
        "train.kl.form",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("method=gigpo method.shaping_in_episode=true", "shaping_in_episode has no effect here, only with"),
        ("method=gigpo method.alignment_in_episode=true", "alignment_in_episode has no effect"),
        ("method=gigpo method.advantage_on=split", "advantage_on .*only with method.progress true"),
        ("method=gigpo method.align_to=before", "align_to has no effect"),
        ("method=gigpo method.alpha=3", "alpha has no effect here, only with method.alignment"),
        ("method=gigpo method.anchor=outcome", "anchor .*takes the judge's values"),
        ("method=gigpo method.judge=reference", "judge .*only with method.reflect true"),
        ("method=gigpo method.rehearsal_when=always", "rehearsal_when .*method.judge reference"),
        ("method=repro method.rehearsal_when=always", "rehearsal_when .*method.judge reference"),
        ("method=gigpo method.reflect=true method.reflect_coef=0", "where something reads the reflections"),
        ("method=gigpo method.overlong.max_length=3", "overlong.max_length .*overlong.factor above 0"),
        ("method=gigpo method.overlong.buffer=2", "overlong.buffer .*overlong.factor above 0"),
        ("method=gigpo method.distill.form=delta", "distill.form .*distill.coef above 0"),
        ("method=gigpo method.distill.on=won", "distill.on .*distill.coef above 0"),
        ("method=gigpo method.distill.text=values", "distill.text .*distill.coef above 0"),
        ("method=gigpo method.distill.gate_beta=1", "distill.gate_beta .*distill.coef above 0"),
        ("method=self-distill-signed method.distill.coef=0 method.distill.clip=1", "distill.clip"),
        (
            "method=repro method.advantage_on=split method.alignment_in_episode=true",
            "alignment_in_episode .*advantage_on not split",
        ),
        ("method=maxrl method.maxrl.epsilon=0.1", "maxrl.epsilon .*maxrl.guarded false"),
        ("method=proxmo method.proxmo.modulate=false method.proxmo.alpha=2", "proxmo.alpha"),
        ("method=proxmo method.proxmo.modulate=false method.proxmo.beta=2", "proxmo.beta"),
        ("method=proxmo method.proxmo.beta=2 method.proxmo.target_range=0.2", "target_range .*beta null"),
        ("method=gagpo method.gagpo.success_value=5", "success_value .*value_source other than outcome"),
        ("method=hgpo method.history=0 method.level_power=3", "level_power .*method.history above 0"),
        ("method=gigpo method.progress_advantage.tokens=max", "progress 'progress_advantage'"),
        ("method=progress-advantage method.progress_advantage.steps=max", "repro_rl.credit.advantages"),
        ("method=graphgpo-judged method.graphgpo.relative_distance=true", "on two scales"),
        ("method=repro method.beta=0 method.shaping_form=raw", "shaping_form .*method.beta above 0"),
        ("method=repro method.judge_gate=graph method.beta=0", "judge_gate .*method.beta above 0"),
        ("train.kl.form=none train.kl.coef=0.1", "train.kl.coef .*form other than none"),
        ("train.kl.clamp=5", "train.kl.clamp has no effect here, only with a KL on the sampled token"),
        ("train.kl={form: k3, coef: 0, clamp: 5}", "train.kl.clamp has no effect"),
        ("train.kl.form=k1", "'k1': as a loss its expected gradient is zero.*k1+"),
    ],
)
def test_what_nothing_reads_is_refused(settings: str, message: str) -> None:
    given = [settings] if "{" in settings else settings.split()
    with pytest.raises(ConfigError, match=message):
        load_config(None, given)


@pytest.mark.parametrize(
    "settings",
    [
        "method=repro-act-value method.value_gamma=0.9",
        "method=value-shaping method.value_gamma=0.9",
        "method=repro-fixed-judge method.rehearsal_when=always",
        "method=self-distill method.distill.on=won",
        "method=gigpo method.reflect=true",
        "method=gigpo method.judge_temperature=0.7 method.judge_pool=none method.anchor_key=observation",
        "method=maxrl method.maxrl.guarded=false method.maxrl.epsilon=0.1",
        "method=repro method.beta=0",
        "method=repro-act-gated method.beta=0",  # which the method's gate does not forbid in a sweep
        "method=gigpo method.alpha=0",
        "train.kl.form=none train.kl.coef=0",
        "train.kl.form=k3 train.kl.clamp=5",
        "train.kl.form=k1 train.kl.coef=0",
    ],
)
def test_what_is_read_is_taken(settings: str) -> None:
    config = load_config(None, settings.split())
    assert load_config(None, [("method", config.method.model_dump()), *settings.split()]) == config


def test_a_methods_own_settings_stand_and_a_rule_of_ones_own_may_read_all() -> None:
    with METHODS.isolated(), CREDIT.isolated():
        register_method("mine", {"credit": "gigpo", "reflect": False, "shaping": "none", "alignment": "none",
                                 "progress": False, "alpha": 3.0, "proxmo": {"alpha": 2.0}})  # fmt: skip
        assert load_config(None, ["method=mine"]).method.alpha == 3.0
        with pytest.raises(ConfigError, match=r"method\.alpha has no effect"):
            load_config(None, ["method=mine", "method.alpha=2"])
        register_credit("own")(lambda inputs, settings: inputs.rows(inputs.flat("rewards")))
        own = ["method=gigpo", "method.credit=own", "method.alpha=3", "method.maxrl.epsilon=0.1"]
        assert load_config(None, own).method.maxrl.epsilon == 0.1


def test_a_sweep_leaves_out_what_an_arm_does_not_read() -> None:
    knobs = {
        "method.alpha": [0.1, 1.0],
        "method.value_gamma": [0.9, 0.99],
        "method.reflect_share": [0.25, 0.5],
        "method.anchor_key": ["state", "observation"],
    }
    sweep = {"seeds": [9], "env_steps": 100, "knobs": knobs}
    study = load_study(None, methods=["grpo", "gigpo", "repro", "repro-act-value"], seeds=[0], sweep=sweep)
    assert [len(grid(study, arm)) for arm in study.methods] == [1, 2, 8, 8]
