"""Runs whose settings no training would take any more are still read by what plays with their models."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from repro_rl.config import check_trainable, dump_config, load_config, load_run_config
from repro_rl.config.trust import signed_config
from repro_rl.errors import ConfigError


def old_run(folder: Path, *settings: str, **sections: dict[str, Any]) -> Path:
    """A run of this account whose config.yaml has ``sections`` over those of today's ``settings``."""
    data = yaml.safe_load(dump_config(load_config(None, list(settings))))
    for name, values in sections.items():
        for key, value in values.items():
            data[name][key] = {**data[name][key], **value} if isinstance(value, dict) else value
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(signed_config(yaml.safe_dump(data)))
    return folder


CHAT = {"prompt": {"context": "chat"}}
CASES: list[tuple[list[str], dict[str, Any], str]] = [
    ([], {"train": {"kl": {"form": "k1", "coef": 0.1}}}, "train.kl.form is 'k1'"),
    (["method=gagpo"], CHAT, "train.loss.name is gspo"),
    (["method=dr-grpo"], {**CHAT, "train": {"loss": {"scale": None}}}, "divides by the longest row"),
    (["method=hcapo"], CHAT, "method.credit=hcapo needs prompt.context=window"),
    (["method=gigpo"], {"method": {"alpha": 3.0}}, "method.alpha has no effect"),
    (["method=gigpo"], {"method": {"credit": "gone"}}, "Unknown credit rule 'gone'"),
    (["method=gigpo"], {"method": {"name": "gone"}}, "Unknown method 'gone'"),
    (["method=gigpo"], {"train": {"loss": {"name": "gone"}}}, "Unknown policy loss 'gone'"),
    ([], {"method": {"shaping": "gone"}}, "method.shaping: unknown source of progress"),
    ([], {"method": {"progress_settings": {"oracle": {"mine": 1}}}}, "has no setting 'mine'"),
    ([], {"method": {"overlong": {"buffer": 3, "max_length": 2}}}, "must not exceed max_length"),
    ([], {"train": {"of_a_newer_version": 1}}, "Unknown setting 'train.of_a_newer_version'"),
    ([], {"train": {"groups": 7, "minibatches": 2}}, "train.groups (7) must be a multiple"),
    ([], {"train": {"betas": [0.9]}}, "train.betas"),
    ([], {"train": {"clip": 0.1, "loss": {"name": "cispo"}}}, "train.clip is 0.1"),
    ([], {"warmup": {"updates": 0}}, "warmup.updates"),
    ([], {"alarms": {"gone": 1}}, "Unknown setting 'alarms.gone'"),
]


@pytest.mark.parametrize(("settings", "sections", "told"), CASES)
def test_what_only_a_training_reads_is_told_and_not_refused(
    tmp_path: Path, settings: list[str], sections: dict[str, Any], told: str
) -> None:
    run = old_run(tmp_path, *settings, **sections)
    with pytest.warns(UserWarning, match="nothing is trained here") as found:
        config = load_run_config(run, ["eval.tasks=3"])
    text = str(found[0].message)
    assert text.startswith(f"{run / 'config.yaml'}: ")
    assert told in text
    assert text.endswith("A training with this would be refused now; nothing is trained here.")
    assert config.eval.tasks == 3
    for name, value in sections.get("prompt", {}).items():
        assert getattr(config.prompt, name) == value
    with pytest.raises(ConfigError) as refused:  # as a training reads the same settings
        load_config(run / "config.yaml")
    assert told in str(refused.value)


def test_settings_of_a_part_that_is_gone_are_left_out_with_it(tmp_path: Path) -> None:
    """Checked against the default part they would be called its own mistakes."""
    gone = {"credit": "gone", "credit_settings": {"factor": 2.0}, "shaping": "lost"}
    gone |= {"progress_settings": {"lost": {"decay": 0.5}}}
    loss = {"name": "away", "settings": {"negative": 0.3}}
    run = old_run(tmp_path, method=gone, train={"loss": loss})
    with pytest.warns(UserWarning, match="nothing is trained here") as found:
        config = load_run_config(run)
    told = [str(warning.message) for warning in found]
    assert len(told) == 3
    for name in ("gone", "lost", "away"):
        assert sum(f"(got {name!r}). A training" in text for text in told) == 1
    assert all("plugins=[MODULE] (got" in text and ".." not in text.removeprefix(str(run)) for text in told)
    assert not config.method.credit_settings
    assert not config.train.loss.settings


def test_settings_that_break_a_rule_stay_as_they_were(tmp_path: Path) -> None:
    run = old_run(tmp_path, train={"kl": {"form": "k1", "coef": 0.1}, "groups": 7, "minibatches": 2})
    with pytest.warns(UserWarning, match="nothing is trained here") as found:
        config = load_run_config(run)
    assert len(found) == 2
    assert (config.train.kl.form, config.train.groups) == ("k1", 7)
    with pytest.raises(ConfigError, match="'k1'"):
        check_trainable(config)
    check_trainable(load_config(None))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"prompt": {"action_tokens": 0}}, r"prompt\.action_tokens"),
        ({"method": {"progress": "perhaps"}}, r"method\.progress"),
        ({"method": {"judge": "nobody"}}, r"method\.judge"),
        ({"eval": {"gone": 1}}, r"Unknown setting 'eval\.gone'"),
        ({"train": {"init": "api:gpt"}}, r"train\.init is 'api:gpt'"),
    ],
)
def test_what_playing_reads_is_refused(tmp_path: Path, sections: dict[str, Any], told: str) -> None:
    both = {**sections, "train": {"groups": 7, "minibatches": 2, **sections.get("train", {})}}
    for changes in (sections, both):
        with pytest.raises(ConfigError, match=told):
            load_run_config(old_run(tmp_path, **changes))


def test_what_is_typed_now_is_checked_like_any_other_setting(tmp_path: Path) -> None:
    run = old_run(tmp_path, train={"groups": 7, "minibatches": 2})
    for override, told in (
        ("train.kl.form=k1", "'k1'"),
        ("train.lrr=1", "Unknown setting 'train.lrr'"),
        ("method.alpha=-1", r"method\.alpha"),
    ):
        with pytest.raises(ConfigError, match=told):
            load_run_config(run, [override])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_run_config(run, ["train.groups=8"]).train.groups == 8
