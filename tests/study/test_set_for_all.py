"""A study's ``set`` is for all arms: each takes what it reads, and what no arm reads is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repro_rl.credit import register_credit
from repro_rl.errors import ConfigError
from repro_rl.study.definition import (
    arm_settings,
    grid,
    load_study,
    notes_on_set,
    readers_of_set,
    run_config,
)
from repro_rl.study.jobs import final_jobs, sweep_jobs

# A setting, an arm that reads it, and one that does not.
CASES = [
    ("method.alpha=2", "repro", "gigpo"),
    ("method.rehearsal_when=always", "repro-fixed-judge", "repro"),
    ("method.value_gamma=0.9", "repro-act-value", "repro"),
    ("method.hcapo.clip_high=1.5", "hcapo", "grpo"),
    ("method.level_power=2", "hgpo", "gigpo"),
    ("method.shaping_form=raw", "l2", "gigpo"),
    ("method.distill.on=won", "self-distill", "grpo"),
    ("train.loss.dual_clip=3", "grpo", "gagpo"),
    ("train.loss.scale=30", "dr-grpo", "grpo"),
    ("train.clip=0.1", "grpo", "gagpo"),
]


def study(*settings: str, arms: list[Any], **more: Any) -> Any:
    return load_study(None, methods=arms, seeds=[0], set=list(settings), **more)


@pytest.mark.parametrize(("setting", "reader", "other"), CASES)
def test_an_arm_takes_what_it_reads_and_goes_without_the_rest(setting: str, reader: str, other: str) -> None:
    found = study(setting, "train.lr=0.1", arms=[reader, other])
    one, another = found.methods
    assert arm_settings(found, one) == [setting, "train.lr=0.1"]
    assert arm_settings(found, another) == ["train.lr=0.1"]
    assert run_config(found, another).train.lr == 0.1
    (note,) = notes_on_set(found)
    assert note.startswith(
        f"set: {setting} is read by {reader}. {other} does not read it and runs without it."
    )
    assert f"{{name: ARM, method: NAME, set: [{setting}]}}" in note
    with pytest.raises(ConfigError, match=f"no arm of this study reads it \\({other}\\)") as caught:
        study(setting, arms=[other])
    assert "give it to an arm that reads it: {name: ARM" in str(caught.value)


def test_what_recipes_give_for_all_methods_stays_in_every_command() -> None:
    found = study("method.beta=2", arms=["repro", "grpo"])
    assert [arm_settings(found, arm) for arm in found.methods] == [["method.beta=2"]] * 2
    assert notes_on_set(found) == []


@pytest.mark.parametrize(
    ("setting", "reader", "arms"),
    [
        ("method.beta=2", "repro", ["grpo", "gigpo"]),
        ("method.judge_pool=state", "repro", ["gigpo"]),
        ("method.gamma=0.9", "gigpo", ["grpo", "rloo"]),
        ("method.rehearsal_coef=2", "repro", ["gigpo"]),
        ("train.kl={form: k3, coef: 0}", "grpo", []),  # a section: nothing says which of it is meant
    ],
)
def test_a_setting_of_all_methods_that_no_arm_reads_is_refused(
    setting: str, reader: str, arms: list[str], tmp_path: Path
) -> None:
    assert study(setting, arms=[reader, *arms]).set == [setting]
    if not arms:
        return
    with pytest.raises(ConfigError) as caught:
        study(setting, arms=arms)
    name = f"no arm of this study reads it ({', '.join(arms)})"
    assert str(caught.value).startswith(f"set: {setting}: {name}, so it would have no effect. Leave it out")
    file = tmp_path / "study.yaml"
    file.write_text(f"set: ['{setting}']\nmethods: [{reader}, {arms[0]}]\n")
    assert load_study(file, methods=arms).set == [setting]  # others of the file read it


def test_a_swept_setting_may_make_another_one_read() -> None:
    sweep = {"seeds": [9], "knobs": {"train.kl.coef": [0.0, 0.1]}}
    settings = ("train.kl.coef=0", "train.kl.form=k3")
    assert study(*settings, arms=["grpo"], sweep=sweep).set == list(settings)
    with pytest.raises(ConfigError, match=r"set: train\.kl\.form=k3: no arm of this study reads it \(grpo\)"):
        study(*settings, arms=["grpo"])


def test_settings_that_need_each_other_are_taken_together() -> None:
    found = study("train.kl.form=k3", "train.kl.coef=0.1", "train.kl.clamp=5", arms=["repro", "grpo"])
    assert notes_on_set(found) == []
    both = ("method.overlong.factor=1", "method.overlong.max_length=3")
    assert notes_on_set(study(*both, arms=["repro", "grpo"])) == []
    # The second is read by nothing without the first, which a judge of the policy's own does not read.
    pair = study("method.judge=reference", "method.rehearsal_when=always", arms=["repro", "gigpo"])
    assert readers_of_set(pair) == dict.fromkeys(pair.set, (["repro"], ["gigpo"]))


def test_an_arms_own_settings_are_not_left_out() -> None:
    with pytest.raises(ConfigError, match=r"Arm 'mine': method\.alpha has no effect here"):
        study(arms=["repro", {"name": "mine", "method": "gigpo", "set": ["method.alpha=2"]}])
    with pytest.raises(ConfigError, match=r"Arm 'repro': method\.alpha: "):
        study("method.alpha=-1", arms=["repro", "gigpo"])  # wrong for any arm


def test_settings_of_a_rule_of_ones_own_go_to_its_arms() -> None:
    register_credit("own")(lambda inputs, settings, *, scale=1.0: inputs.rows(inputs.flat("rewards")))
    mine = {"name": "mine", "method": "gigpo", "set": ["method.credit=own"]}
    found = study("method.credit_settings.scale=2", arms=[mine, "grpo"])
    assert readers_of_set(found) == {"method.credit_settings.scale=2": (["mine"], ["grpo"])}
    assert run_config(found, found.methods[0]).method.credit_settings == {"scale": 2.0}


def test_commands_and_the_sweep_go_without_it_too(tmp_path: Path) -> None:
    knobs = {"method.gamma": [0.5, 0.9], "train.clip": [0.1, 0.2]}
    sweep = {"seeds": [9], "knobs": knobs, "set": ["train.kl.clamp=5"]}
    found = study("method.alpha=2", "train.kl.form=k3", arms=["repro", "gagpo"], sweep=sweep)
    assert [len(grid(found, arm)) for arm in found.methods] == [4, 2]  # gagpo's loss has bounds of its own
    for jobs in (final_jobs(found, tmp_path, {}), sweep_jobs(found, tmp_path)):
        for job in jobs:
            for command in job.commands:
                if command[0] == "train":
                    assert ("method.alpha=2" in command) == (job.arm == "repro")
                    assert ("train.kl.clamp=5" in command) == (job.stage == "sweep")


def test_a_method_that_is_no_arm_of_the_file_goes_without_what_it_does_not_read(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    settings = ["method.alpha=2", "method.beta=2", "method.gamma=0.9", "train.lr=0.1"]
    file.write_text(f"set: {settings}\nmethods: [repro, gigpo]\n".replace("'", ""))
    for methods in (["grpo"], ["gigpo", "grpo"]):
        found = load_study(file, methods=methods)
        item = found.methods[-1]
        assert item.name == item.method == "grpo"
        assert arm_settings(found, item) == settings[1:]
        assert run_config(found, item).method.alpha != 2
        (note,) = notes_on_set(found)
        assert note.startswith("set: method.alpha=2 is read by no arm that is selected. ")
        assert note.count(", ".join(methods)) == 1
    # A method that reads what no arm of the file does takes it.
    file.write_text("set: [method.level_power=2]\nmethods: [repro, gigpo]\n")
    found = load_study(file, methods=["hgpo"])
    assert arm_settings(found, found.methods[0]) == ["method.level_power=2"]


def test_arms_selected_of_a_file_may_leave_its_set_to_others(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("set: [method.alpha=2]\nmethods: [repro, gigpo]\n")
    found = load_study(file, methods=["gigpo"])
    assert found.set == ["method.alpha=2"]  # as in the study's folder, which the same file continues
    assert arm_settings(found, found.methods[0]) == []
    (note,) = notes_on_set(found)
    assert note.startswith(
        "set: method.alpha=2 is read by no arm that is selected. gigpo does not read it and"
    )
    assert final_jobs(found, tmp_path, {})
    with pytest.raises(ConfigError, match=r"method\.level_power=2: no arm of this study reads it \(gigpo\)"):
        load_study(file, methods=["gigpo"], set=["method.level_power=2"])
    file.write_text("set: [method.level_power=2]\nmethods: [repro, gigpo]\n")
    with pytest.raises(ConfigError, match=r"method\.level_power=2: no arm"):
        load_study(file, methods=["gigpo"])
