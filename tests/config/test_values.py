"""What is typed as a value: text stays text, and everything else is YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from repro_rl.config import RunConfig, env_values, load_config
from repro_rl.config.values import as_typed, kind_of, parse_text
from repro_rl.errors import ConfigError

NAMES = (
    *("001", "1e5", "no", "yes", "null", "~", "2026-01-31", "0x10", "1_000", ".5", "inf", "12:30"),
    *("a: b", "x #2", "#x", "[x]", "{a}", "- x", "* x", "&a", "!t", "%x", "@a", "`b`", "? x", "a=b", "|"),
    *(" x ", "it's", '"a', "a'b", "tab\there", "ü/é", "C:\\new"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_setting_is_taken_as_typed(name: str) -> None:
    keys = ("train.init", "policy.model", "api.model", "eval.split", "env.settings.levels", "train.demos")
    config = load_config(None, [f"{key}={name}" for key in keys] + [f"prompt.template_dir={name}"])
    found = (config.train.init, config.policy.model, config.api.model, config.eval.split)
    assert found == (name,) * 4
    assert config.env.settings["levels"] == name
    assert config.train.demos == name
    assert config.prompt.template_dir == Path(name)


@pytest.mark.parametrize("name", NAMES)
def test_so_is_a_value_that_is_no_text_on_the_command_line(name: str) -> None:
    assert load_config(None, [], [("train.init", name)]).train.init == name
    assert env_values("webshop", [f"data={name}"]) == {"data": name}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_only_quotes_around_the_whole_are_dropped(text: str) -> None:
    found = parse_text(text, str | None)
    assert found == text or (text[0] == text[-1] and text[0] in "'\"")


def test_quotes_keep_blanks_and_nothing_is_none() -> None:
    assert parse_text("' a '", str) == " a "
    assert parse_text('"x"', Path | None) == "x"
    assert parse_text("'it", str) == "'it"
    assert parse_text("", str | None) is None
    assert parse_text("", str) == ""
    assert load_config(None, ["train.init = runs/x "]).train.init == "runs/x"


def test_lists_of_texts() -> None:
    assert parse_text("[001, no, 'a: b', null]", list[str]) == ["001", "no", "a: b", "null"]
    assert parse_text("[]", list[str]) == []
    assert parse_text("all-linear", str | list[str]) == "all-linear"
    assert parse_text("[q, 2]", str | list[str]) == ["q", "2"]
    with pytest.raises(ConfigError, match=r"put each one in quotes"):
        parse_text("[a: b]", list[str])
    with pytest.raises(ConfigError, match=r"plugins: .*list"):
        load_config(None, ["plugins=mine"])


def test_numbers_are_decimal_and_the_rest_is_yaml() -> None:
    cases = {
        "010": 10,
        "-5": -5,
        "5e-4": 5e-4,
        ".5": 0.5,
        "2.": 2.0,
        " 3 ": 3,
        "true": True,
        "[1, 2]": [1, 2],
    }
    for text, value in cases.items():
        assert parse_text(text, int | float) == value, text
    assert parse_text("'5'", dict) == "5"
    config = load_config(None, ["seed=007", "train.lr=1e-3", "policy.chat=off", "train.kl.form=none"])
    assert (config.seed, config.train.lr, config.policy.chat) == (7, 0.001, "off")


def test_texts_inside_a_whole_section() -> None:
    config = load_config(None, ["train={init: 001, demos: no, lr: 0.1}", "policy.lora={targets: [1, off]}"])
    assert (config.train.init, config.train.demos, config.train.lr) == ("001", "no", 0.1)
    assert config.policy.lora.targets == ["1", "off"]


def test_files_are_read_likewise_but_null_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "base: sokoban-tiny\n"
        "env: {settings: {levels: 2026-01-31}}\n"
        "train: {init: 001, demos: null, iterations: 3}\n"
        "policy: {model: 1e5, device: cpu, lora: {targets: [no, 010]}}\n"
        "method: no-such\n"
    )
    with pytest.raises(ConfigError, match="Unknown method 'no-such'"):
        load_config(tmp_path / "a.yaml")
    config = load_config(tmp_path / "a.yaml", ["method=repro"])
    assert (config.train.init, config.train.demos, config.train.iterations) == ("001", None, 3)
    assert (config.policy.model, config.policy.lora.targets) == ("1e5", ["no", "010"])
    assert config.env.settings["levels"] == "2026-01-31"
    (tmp_path / "b.yaml").write_text("base: webshop-tiny\nenv: {settings: {data: 001, limit: 5}}\n")
    assert load_config(tmp_path / "b.yaml").env.settings == {
        **load_config("webshop-tiny").env.settings,
        "data": "001",
        "limit": 5,
    }


def test_kinds_of_settings() -> None:
    assert kind_of(str | None) == "text"
    assert kind_of(Path) == "text"
    assert kind_of(list[str]) == kind_of(tuple[str, ...]) == "texts"
    assert kind_of(str | list[str]) == "text or texts"
    assert kind_of(int | str) == kind_of(dict) == kind_of(None) == "other"
    assert as_typed({"seed": 10}, {"seed": "010"}, RunConfig) == {"seed": 10}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=.inf", r"^Override .train\.lr=\.inf.*only finite"),
        ("train.lr=inf", r"^train\.lr: .*finite"),
        ("warmup.lr=nan", r"^warmup\.lr: "),
        ("demos.labelled_mistakes=[.nan]", r"^Override .demos\.labelled_mistakes=.*only finite"),
        ("seed=-1", r"^seed: .*greater than or equal to 0"),
        ("seed=9223372036854775808", r"^seed: .*less than or equal"),
        ("eval.seed=-3", r"^eval\.seed: "),
        ("policy.device=gpu", r"^policy\.device: "),
        ("policy.device=cuda:x", r"^policy\.device: "),
    ],
)
def test_values_out_of_range_are_refused_at_once(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])
