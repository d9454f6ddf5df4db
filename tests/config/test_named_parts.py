"""Names that ``repro-rl settings`` looks up: methods, credit rules, losses and sources of progress."""

from __future__ import annotations

import pytest

from repro_rl.config import METHODS
from repro_rl.config.named_parts import find_settings, named_parts, part_names
from repro_rl.config.reference import SectionReference, Setting, run_settings
from repro_rl.credit import CREDIT, SOURCES, register_credit, register_progress
from repro_rl.errors import ConfigError
from repro_rl.losses import LossTokens, register_loss
from repro_rl.losses.named import LOSS_NAMES


def part(name: str, kind: str) -> SectionReference:
    (found,) = [section for section in named_parts(name) if section.about.startswith(f"{kind}. ")]
    return found


def rows(section: SectionReference) -> dict[str, Setting]:
    return {row.name: row for row in section.settings}


def test_a_name_of_two_parts_shows_both() -> None:
    method, rule = find_settings("gigpo")
    assert method.about.startswith("method. Grpo and returns-to-go")
    assert method.about.endswith("Its credit rule is gigpo. What it sets:")
    assert rows(method)["method.reflect"].default == "false"
    assert rule.about.startswith("credit rule. EP(R) + omega * SN(G)")
    assert [row.name for row in rule.settings] == [
        *("method.anchor_key", "method.gamma", "method.omega", "method.normalize", "method.episode_baseline"),
    ]


@pytest.mark.parametrize(
    ("name", "setting", "own", "elsewhere"),
    [
        ("hcapo", "method.episode_baseline", "trajectories", "steps"),
        ("graphgpo", "method.normalize", "mean_std", "mean"),
    ],
)
def test_what_a_method_sets_of_its_rule_is_listed_once(
    name: str, setting: str, own: str, elsewhere: str
) -> None:
    method, rule = find_settings(name)
    row = rows(method)[setting]
    assert row.default == own
    assert row.description.endswith(f"; read always; {elsewhere} without the method")
    assert setting not in rows(rule)
    assert rule.about.endswith("It also reads:")
    for other in part_names():
        keys = [row.name for section in find_settings(other) for row in section.settings]
        assert len(keys) == len(set(keys)), other


def test_a_rule_lists_what_it_reads_alone() -> None:
    hcapo = rows(part("hcapo", "credit rule"))
    assert hcapo["method.hcapo.temperature"].default == "5.0"
    assert hcapo["method.hcapo.temperature"].description.endswith("; read always")
    assert "method.hindsight" in hcapo
    assert not {key for key in hcapo if key.startswith("method.g2po")}
    assert "method.value_source" in rows(part("g2po", "credit rule"))
    assert "method.value_source" not in hcapo
    proxmo = rows(part("proxmo", "credit rule"))
    assert proxmo["method.proxmo.alpha"].description.endswith("; read with method.proxmo.modulate true")
    for name in CREDIT:
        shared = {f"method.{field}" for field in CREDIT.get(name).ignores}
        assert not shared & rows(part(name, "credit rule")).keys(), name


def test_a_loss_has_its_published_values() -> None:
    loss = part("gspo", "policy loss")
    assert loss.about.startswith("policy loss. One ratio an answer")
    assert [(row.name, row.default) for row in loss.settings][:2] == [
        ("train.loss.clip_low", "0.0003"),
        ("train.loss.clip_high", "0.0004"),
    ]
    assert "train.clip" in rows(part("ppo_clip", "policy loss"))
    assert "train.clip" not in rows(loss)
    scale = rows(loss)["train.loss.scale"].description
    assert scale.endswith("read with train.loss.aggregation seq-mean-token-sum-norm")


def test_a_source_has_what_other_sources_do_not_read() -> None:
    assert list(rows(part("graph_value", "source of progress"))) == ["method.value_gamma"]
    assert "method.progress_advantage.tokens" in rows(part("progress_advantage", "source of progress"))
    assert "method.anchor" in rows(part("retrospective", "source of progress"))
    linear = part("linear", "source of progress").about
    assert linear.startswith("source of progress. t/T on a success")
    assert linear.endswith("It reads no settings of its own.")


def test_parts_of_ones_own_show_their_own_settings() -> None:
    @register_credit("own-rule", ignores=("omega",))
    def rule(inputs, settings, *, scale: float = 2.0, kind: str = "a"):
        """What mine does."""

    @register_loss("own-loss")
    def loss(tokens: LossTokens, *, clip_low: float = 0.1, power: int = 3):
        """A loss of mine."""
        return -tokens.log_prob

    @register_progress("own-source")
    def source(trajectory, *, decay: float = 0.5):
        """A source of mine."""

    shown = part("own-rule", "credit rule")
    assert shown.about.startswith("credit rule. What mine does. It may read any of method.")
    assert [(row.name, row.type, row.default) for row in shown.settings][-2:] == [
        ("method.credit_settings.scale", "float", "2.0"),
        ("method.credit_settings.kind", "text", "a"),
    ]
    assert "method.omega" not in rows(shown)
    own = rows(part("own-loss", "policy loss"))
    assert (own["train.loss.clip_low"].default, own["train.loss.settings.power"].type) == ("0.1", "int")
    told = part("own-source", "source of progress")
    assert told.about.endswith("It may read settings of ours, and reads its own:")
    decay = told.settings[-1]
    assert (decay.name, decay.default) == ("method.progress_settings.own-source.decay", "0.5")


def test_every_name_is_found_and_every_setting_is_one_of_a_run() -> None:
    assert part_names() == sorted({*METHODS, *CREDIT, *LOSS_NAMES, *SOURCES})
    known = run_settings()
    for name in part_names():
        for section in find_settings(name):
            assert section.settings or section.about.endswith("of its own."), name
            for row in section.settings:
                assert row.name in known or ".progress_settings." in row.name, (name, row.name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gipo", "did you mean 'gigpo' or"),
        ("ppo-clip", "'ppo_clip'"),
        ("hcpo", "'hcapo'"),
        ("clip_high", r"did you mean 'train\.loss\.clip_high' or 'method\.hcapo\.clip_high'|'method\.hcapo"),
        ("zzzz", r"annotator 'zzzz'\. A settings file ends in \.yaml\. Sections: env, policy"),
    ],
)
def test_an_unknown_name_lists_near_ones(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=near):
        find_settings(name)
