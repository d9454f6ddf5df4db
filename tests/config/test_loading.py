"""Settings from files and the command line, and what a wrong one is answered with."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from repro_rl.config import (
    METHODS,
    RunConfig,
    dump_config,
    import_plugins,
    load_config,
    parse_config,
    recipe_names,
)
from repro_rl.credit import CREDIT, SOURCES
from repro_rl.errors import ConfigError
from repro_rl.run.preflight import unknown_annotator


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.lr=1", r"Unknown setting 'trian'; did you mean 'train'"),
        ("lr=1", r"Unknown setting 'lr'; did you mean 'train\.lr' or 'warmup\.lr'\? Known: alarms, api"),
        ("env.lr=1", r"Unknown setting 'env\.lr'; did you mean 'train\.lr' or 'warmup\.lr'\? Known: name"),
        ("train.seed=1", r"Unknown setting 'train\.seed'; did you mean 'eval\.seed' or 'seed'\?"),
        ("train.lrr=1", r"Unknown setting 'train\.lrr'; did you mean 'lr'"),
        ("train.kl.coeff=1", r"Unknown setting 'train\.kl\.coeff'; did you mean 'coef'"),
        ("policy.tiny.hiden=1", r"Unknown setting 'policy\.tiny\.hiden'; did you mean 'hidden'"),
        ("policy.vllm.server.urll=x", r"Unknown setting 'policy\.vllm\.server\.urll'; did you mean 'url'"),
        ("api.prices.prmpt=1", r"Unknown setting 'api\.prices\.prmpt'; did you mean 'prompt'\? Known: com"),
        ("method=gigop", r"Unknown method 'gigop'; did you mean 'gigpo'"),
        ("method.gama=1", r"Unknown setting 'method\.gama'; did you mean 'gamma'"),
        ("method.shaping=linar", r"method\.shaping: unknown source of progress; did you mean 'linear'"),
        ("method.alignment=oracel", r"method\.alignment: unknown source .*did you mean 'oracle'"),
        ("method.credit=gigop", r"method\.credit: Unknown credit rule 'gigop'; did you mean 'gigpo'"),
        (
            "method.credit=repro",
            r"method\.credit: 'repro' is a method, not a credit rule: give method=repro\. Known: dr_",
        ),
        (
            "method.credit=dr-grpo",
            r"'dr-grpo' is a method.*: give method=dr-grpo\. .*The credit rule of .*'dr-grpo' is 'dr_grpo'",
        ),
        ("method.credit=gspo", r"'gspo' is a policy loss, not a credit rule: give train\.loss\.name=gspo"),
        ("method.credit=graph", r"'graph' is a source of progress, not .*: give method\.shaping=graph"),
        (
            "method.shaping=grpo",
            r"^method\.shaping: 'grpo' is a method or a credit rule, not a source of progress: give "
            r"method=grpo or method\.credit=grpo\. Known: graph, .*, none, .*\] \(got 'grpo'\)\nSet by",
        ),
        ("method.alignment=gspo", r"^method\.alignment: 'gspo' is a policy loss.*: give train\.loss\.name="),
        (
            "train.loss.name=repro",
            r"^train\.loss\.name: 'repro' is a method, not a policy loss: give method=repro\. Known: cispo",
        ),
        ("train.loss.name=sokoban-tiny", r"'sokoban-tiny' is a recipe, not .*: give -c sokoban-tiny\. Known"),
        ("train.loss.aggregation=gspo", r"'gspo' is a policy loss, not a value of this setting: give train"),
        (
            "env.name=gigpo",
            r"^env\.name: 'gigpo' is a method or .*, not an environment: give method=gigpo",
        ),
        (
            "method=sokoban",
            r"^'sokoban' is .*an environment.*, not a method: give .*env\.name=sokoban",
        ),
        ("demos.annotator=retrospective", r"'retrospective' is a source of progress, not an annotator: give"),
        ("method.credit=constant", r"'constant' is an annotator, not a credit rule: give demos\.annotator="),
        (
            "rloo",
            r"^Override 'rloo' is not of the form .*=value\. 'rloo' is a method.*, not a setting: give",
        ),
        ("grid", r"^Override 'grid' is not of the form section\.key=value\.$"),
    ],
)
def test_unknown_names_name_the_nearest(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override], check=unknown_annotator)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "rloo",
            r"^'rloo' is a method or a credit rule, not a recipe: give .*credit=rloo\. Known: .*\. A file",
        ),
        (
            "sokoban",
            r"^'sokoban' is .*an environment.* give .*env\.name=sokoban.*; did you mean 'sokoban-tiny'",
        ),
    ],
)
def test_no_recipe_has_the_name_of_another_part(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=fast", r"^train\.lr: .*number.*'fast'"),
        ("train.groups=2.5", r"^train\.groups: .*integer.*2\.5"),
        ("train.lr=0", r"^train\.lr: .*greater than 0"),
        ("train=5", r"^train: .*got 5"),
        ("seed.x=1", r"^seed: .*integer"),
        ("method=5", r"^Unknown method '5'"),
        ("env=null", r"^env: .*got None"),
        ("method.shaping=magic", r"^method\.shaping: .*oracle"),
        (
            "method.alignment=online",
            r"^method\.alignment: the source 'online' cannot stand here: .* compared with itself\. "
            r"Choose from: none, graph, .*, oracle, retrospective \(got 'online'\)\nSet by the override",
        ),
        (
            "method.alignment=progress_advantage",
            r"^method\.alignment: the source 'progress_advantage' cannot stand here: its values have no",
        ),
        (
            "method.value_source=online",
            r"^method\.value_source: the source 'online' .*Choose from: outcome, gra",
        ),
        (
            "method.value_source=none",
            r"^method\.value_source: 'none' is no value of this setting; 'outcome' is",
        ),
        ("method.alignment=outcome", r"^method\.alignment: 'outcome' is no value of this setting; 'none' is"),
        ("method.shaping=outcome", r"^method\.shaping: 'outcome' is no value of this setting; 'none' is"),
        ("method.beta=nan", r"^method\.beta: .*finite"),
        ("train.kl.form=k9", r"^train\.kl\.form: "),
        ("prompt.context=windw", r"^prompt\.context: .*'window' or 'chat'.*'windw'"),
        ("train.importance_cap=-1", r"^train\.importance_cap: .*greater than 0"),
        ("train.importance_cap=never", r"\ntrain\.importance_cap: .*'auto' or 'off'"),
        ("policy.lora.targets=[{a: 3}]", r"policy\.lora\.targets=.*is not a list of texts"),
        ("train.groups.x=1", r"^Override 'train\.groups\.x=1': groups is a value in the"),
        (
            "warmup.forward_modes=action",
            r"^warmup\.forward_modes: Input should be a list, such as \[A, B\] \(got",
        ),
        *(
            (
                f"train.betas={given}",
                rf"^train\.betas: Give a list of 2 values, such as \[A, B\] \(got {re.escape(given)}\)\n"
                r"Set by the override 'train\.betas=.*'\.$",
            )
            for given in ("[0.9]", "[]", "[0.9, 0.99, 0.999]")
        ),
        (
            "demos.mistakes=[]",
            r"^demos\.mistakes: Give a list of at least 1 value, such as \[A\] \(got \[\]\)",
        ),
        (
            "demos.mistakes=[2]",
            r"^demos\.mistakes\.0: Input should be less than 1 \(got 2\)\nSet by the over",
        ),
        ("train=3", r"^train: Input should be a section, such as \{KEY: VALUE\} \(got 3\)"),
        ("demos.labelled_mistakes=[0.5, much]", r"^demos\.labelled_mistakes\.1: "),
        ("warmup.forward_modes=[actoin]", r"^warmup\.forward_modes\.0: .*'action', 'progress'"),
        ("api.prices.prompt=1", r"^api\.prices\.completion: Field required\nSet by"),
        ("plugins=mine", r"^plugins: .*list"),
        ("nothing", "not of the form section.key=value"),
        ("=3", "not of the form"),
        ("train.lr=[1", "the value cannot be read as YAML"),
    ],
)
def test_wrong_types_and_ranges_name_the_setting(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def test_a_section_that_a_file_leaves_empty_is_named_without_python(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train:\n")
    with pytest.raises(
        ConfigError, match=r"^Override 'train\.init': train is a value in the settings before"
    ):
        load_config(file, [("train.init", "model")])


def test_every_problem_has_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["train.lr=0", "train.lrr=1", "prompt.history=-1"])
    assert [line.split(":")[0].split(";")[0] for line in str(caught.value).splitlines()] == [
        "prompt.history",
        "train.lr",
        "Unknown setting 'train.lrr'",
        *(f"Set by the override '{typed}'." for typed in ("train.lr=0", "train.lrr=1", "prompt.history=-1")),
    ]


@pytest.mark.parametrize("name", ["api.key_env", "policy.vllm.server.key_env"])
def test_what_may_be_a_key_is_not_repeated(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"{name}=sk-secret"])
    assert str(caught.value).startswith(f"{name}: the NAME of an environment variable")
    assert "secret" not in str(caught.value)


def test_overrides() -> None:
    config = load_config(
        None,
        [
            "env.settings={style: relative}",
            "train.lr=1e-3",
            "train.betas=[0.8, 0.95]",
            "demos.labelled_mistakes=[1e-1, 0.5]",
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
    assert config.demos.labelled_mistakes == (0.1, 0.5)
    assert (config.method.name, config.method.gamma, config.method.reflect) == ("gigpo", 0.9, False)
    assert config.env.settings == {"style": "relative", "boxes": 2}  # the other setting stays
    assert config.eval.temperature == 0
    assert config.train.init == "runs/warm/model"
    assert config.policy.thinking is True
    assert load_config(None).method.name == "repro"
    assert load_config(None).method.shaping == "retrospective"
    assert load_config(None, ["method.name=oracle"]).method.shaping == "oracle"


def test_defaults_give_way_to_overrides_but_outlast_a_whole_section() -> None:
    defaults = ["method.name=gigpo", "train.init=warm/model"]
    for override, method, init in (
        ("train.lr=0.1", "gigpo", "warm/model"),
        ("train={iterations: 3}", "gigpo", "warm/model"),
        ("train={init: other}", "gigpo", "other"),
        ("train.init=", "gigpo", None),
        ("method={gamma: 0.9}", "gigpo", "warm/model"),
        ("method={name: grpo}", "grpo", "warm/model"),
        ("method=rloo", "rloo", "warm/model"),
    ):
        config = load_config(None, [override], defaults)
        assert (config.method.name, config.train.init) == (method, init), override
    assert load_config(None, ["method={gamma: 0.9}"], defaults).method.gamma == 0.9
    with pytest.raises(ConfigError, match=r"^train: .*got 5"):
        load_config(None, ["train=5"], defaults)


def test_another_environment_begins_with_its_own_settings(tmp_path: Path) -> None:
    assert load_config(None, ["env.name=alfworld"]).env.settings == {}
    assert load_config(None, ["env.name=sokoban"]).env.settings == load_config(None).env.settings != {}
    path = tmp_path / "mine.yaml"
    path.write_text("base: sokoban-tiny\nenv:\n")  # an empty section
    assert load_config(path, ["env.name=alfworld"]).env.name == "alfworld"
    with pytest.raises(ConfigError, match=r"^env: "):
        load_config(path)


def test_yaml_reads_off_as_false_and_it_is_meant_as_a_word() -> None:
    config = load_config("sokoban-qwen3", ["prompt.think=off", "policy.chat=off"])
    assert (config.prompt.think, config.policy.chat) == ("off", "off")
    assert load_config("sokoban-qwen3", ["policy.chat=on"]).policy.chat == "on"
    with pytest.raises(ConfigError, match=r"prompt\.think: .*'required'"):
        load_config("sokoban-qwen3", ["prompt.think=on"])


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 4\nmethod: gigpo\ntrain: {lr: 5e-4}\n")
    config = load_config(path, ["method.gamma=0.9"])
    assert (config.seed, config.method.name, config.method.gamma, config.train.lr) == (4, "gigpo", 0.9, 5e-4)
    path.write_text("")
    assert load_config(path).method.name == "repro"
    for text, message in (
        ("- a\n", "must hold sections"),
        ("a: [", "cannot be read as YAML"),
        ("train:\n", "train"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(path)
    path.write_bytes(b"seed: \xff")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is not UTF-8 text: byte 0xff at offset 6"):
        load_config(path)
    with pytest.raises(ConfigError, match="No config file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses(name: str) -> None:
    assert isinstance(load_config(name), RunConfig)


@pytest.mark.parametrize("name", METHODS.names())
def test_dump_and_parse_round_trip(name: str) -> None:
    more = ["method.beta=0.3", "prompt.template_dir=/x", "train.lr=1e-5"]
    config = load_config(None, [f"method={name}", *more])
    text = dump_config(config)
    again = parse_config(yaml.safe_load(text))
    assert again == config
    assert dump_config(again) == text
    assert again.method.beta == 0.3


def test_plugins_are_imported_before_names_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_of_a_test.py").write_text(
        "from repro_rl.config import register_method\n"
        "from repro_rl.credit import register_credit, register_progress\n"
        "register_method('mine', {'credit': 'mine', 'shaping': 'mine', 'reflect': False})\n"
        "register_credit('mine')(lambda rewards, *rest: rewards)\n"
        "register_progress('mine')(lambda trajectory: None)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with METHODS.isolated(), CREDIT.isolated(), SOURCES.isolated():
        config = load_config(None, ["plugins=[plugin_of_a_test]", "method=mine"])
        assert (config.method.credit, config.method.shaping) == ("mine", "mine")
    monkeypatch.delitem(sys.modules, "plugin_of_a_test")
    with pytest.raises(ConfigError, match=r"plugins: cannot import 'no_such_plugin'.*PYTHONPATH"):
        import_plugins(["no_such_plugin"])


def test_plugins_of_all_layers_are_imported(tmp_path: Path) -> None:
    """A list that took the place of the file's would lose the environment that the file itself names."""
    (tmp_path / "base.yaml").write_text("base: sokoban-tiny\nplugins: [json]\n")
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nplugins: [csv, json]\n")
    (tmp_path / "none.yaml").write_text("base: base.yaml\nplugins: []\n")
    mine = tmp_path / "mine.yaml"
    assert load_config(mine).plugins == ["json", "csv"]
    assert load_config(mine, ["plugins=[abc]", "plugins=[csv, ast]"]).plugins == ["json", "csv", "abc", "ast"]
    assert load_config(mine, [("plugins", ["abc"])]).plugins == ["json", "csv", "abc"]
    assert load_config(mine, ["plugins=[]"]).plugins == []
    assert load_config(mine, ["plugins=[]", "plugins=[abc]"]).plugins == ["abc"]
    assert load_config(tmp_path / "none.yaml").plugins == []
    with pytest.raises(ConfigError, match=r"^plugins: .*list"):
        load_config(mine, ["plugins=abc"])
