"""Settings: overrides and files, and messages that name the setting."""

from __future__ import annotations

import pytest
import yaml

from repro_rl.config import METHODS, RunConfig, dump_config, load_config, parse_config, recipe_names
from repro_rl.errors import ConfigError


def test_unknown_keys_name_the_nearest():
    for override, message in (
        ("trian.lr=1", r"Unknown setting 'trian'; did you mean 'train'"),
        ("train.lrr=1", r"Unknown setting 'train\.lrr'; did you mean 'lr'"),
        ("train.kl.coeff=1", r"Unknown setting 'train\.kl\.coeff'; did you mean 'coef'"),
        ("policy.tiny.hiden=1", r"Unknown setting 'policy\.tiny\.hiden'; did you mean 'hidden'"),
        ("method=gigop", r"Unknown method 'gigop'; did you mean 'gigpo'"),
        ("method.gama=1", r"Unknown setting 'method\.gama'; did you mean 'gamma'"),
        ("method.shaping=linar", r"method\.shaping: .*did you mean 'linear'.*got 'linar'"),
        ("method.credit=gigop", r"Unknown credit rule 'gigop'; did you mean 'gigpo'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, [override])
    with pytest.raises(ConfigError, match="Unknown recipe 'sokoban-tinny'; did you mean 'sokoban-tiny'"):
        load_config("sokoban-tinny")


def test_wrong_types_and_ranges_name_the_setting():
    for override, message in (
        ("train.lr=fast", r"train\.lr: .*number.*'fast'"),
        ("train.groups=2.5", r"train\.groups: .*integer.*2\.5"),
        ("train.lr=0", r"train\.lr: .*greater than 0"),
        ("train=5", r"train: .*got 5"),
        ("method.shaping=magic", r"method\.shaping: .*oracle.*got 'magic'"),
        ("train.kl.form=k9", r"train\.kl\.form"),
        ("train.groups.x=1", "groups is a value, not a section|train"),
        ("demos.noise=[0.5, much]", r"demos\.noise\.1"),
        ("nothing", "not of the form section.key=value"),
        ("=3", "not of the form"),
        ("train.lr=[1", "the value is not YAML"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, [override])


def test_overrides():
    config = load_config(
        None,
        [
            "env.settings={style: relative}",
            "train.lr=1e-3",
            "train.betas=[0.8, 0.95]",
            "demos.noise=[1e-1, 0.5]",
            "method=gigpo",
            "method.gamma=0.9",
            "env.settings.boxes=2",
            "eval.temperature=0",
            "train.init=runs/warm/model",
            "policy.thinking=true",
            "warmup.target_success=null",
        ],
    )
    assert config.train.lr == 1e-3
    assert config.train.betas == (0.8, 0.95)
    assert config.demos.noise == (0.1, 0.5)
    assert (config.method.name, config.method.gamma, config.method.reflect) == ("gigpo", 0.9, False)
    assert config.env.settings == {"style": "relative", "boxes": 2}  # the other setting stays
    assert config.eval.temperature == 0
    assert config.train.init == "runs/warm/model"
    assert config.policy.thinking is True
    assert load_config(None).method.name == "repro"
    assert load_config(None).method.shaping == "retrospective"
    assert load_config(None, ["method.name=oracle"]).method.shaping == "oracle"


def test_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 4\nmethod: gigpo\ntrain: {lr: 5e-4}\n")
    config = load_config(path, ["method.gamma=0.9"])
    assert (config.seed, config.method.name, config.method.gamma, config.train.lr) == (4, "gigpo", 0.9, 5e-4)
    path.write_text("")
    assert load_config(path).method.name == "repro"
    for text, message in (("- a\n", "must hold sections"), ("a: [", "is not YAML"), ("train:\n", "train")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(path)
    with pytest.raises(ConfigError, match="No config file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses(name):
    assert isinstance(load_config(name), RunConfig)


@pytest.mark.parametrize("name", METHODS.names())
def test_dump_and_parse_round_trip(name):
    more = ["method.beta=0.3", "prompt.template_dir=/x", "train.lr=1e-5"]
    config = load_config(None, [f"method={name}", *more])
    text = dump_config(config)
    again = parse_config(yaml.safe_load(text))
    assert again == config
    assert dump_config(again) == text
    assert again.method.beta == 0.3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.reflect=false"], "'retrospective' needs method.reflect"),
        (["method=gigpo", "method.shaping=retrospective"], "'retrospective' needs method.reflect"),
        (["method=gigpo", "method.alignment=oracle"], "need method.progress"),
        (["method=gigpo", "method.shaping=online"], "need method.progress"),
        (["method.judge_temperature=0.4", "method.reflect_share=1"], "or method.reflect_share below 1"),
        (
            ["train={groups: 6, minibatches: 4}"],
            r"groups \(6\) must be a multiple of train.minibatches \(4\)",
        ),
    ],
)
def test_contradictions(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)
