"""An error of settings says where the setting is set: in which file, or by which override."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.config import Override, load_config, load_run_config
from repro_rl.config.origins import Place, of_file, of_override, sentences, without_places
from repro_rl.config.problems import Problem
from repro_rl.errors import ConfigError


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("base: sokoban-tiny\ntrain: {groups: 6, minibatches: 3, lr: fast}\n")
    Path("mine.yaml").write_text("base: base.yaml\ntrain: {lr: 0.1}\n")
    Path("k1.yaml").write_text("base: sokoban-tiny\ntrain: {kl: {form: k1, coef: 0}}\n")
    Path("loss.yaml").write_text("base: sokoban-tiny\ntrain: {loss: {clip_high: 0.3}}\n")


def told(source: str | None, *overrides: Override) -> list[str]:
    """The lines of the error that begin with "Set"."""
    with pytest.raises(ConfigError) as caught:
        load_config(source, list(overrides))
    return [line for line in str(caught.value).splitlines() if line.startswith("Set ")]


@pytest.mark.parametrize(
    ("source", "overrides", "expected"),
    [
        ("base.yaml", [], ["Set in base.yaml: train.lr."]),
        ("mine.yaml", ["train.minibatches=4"], ["Set in base.yaml: train.groups.", "OVERRIDE"]),
        ("mine.yaml", ["train.lr=slow"], ["OVERRIDE"]),
        ("k1.yaml", ["train.kl.coef=0.1"], ["Set in k1.yaml: train.kl.form.", "OVERRIDE"]),
        ("loss.yaml", ["train.loss.name=sapo"], ["Set in loss.yaml: train.loss.", "OVERRIDE"]),
        ("mine.yaml", ["train={groups: 6, minibatches: 4}"], ["OVERRIDE"]),
        ("mine.yaml", ["train=5"], ["OVERRIDE"]),
        ("mine.yaml", ["api.prices.prompt=1"], ["OVERRIDE"]),
        ("mine.yaml", ["demos.labelled_mistakes=[0.5, much]"], ["OVERRIDE"]),
        ("mine.yaml", ["method=gigop"], ["OVERRIDE"]),
        ("mine.yaml", ["plugins=[no_such_module]"], ["OVERRIDE"]),
        (
            None,
            ["train.groups=3", "train.minibatches=2"],
            ["Set by the override 'train.groups=3'.", "OVERRIDE"],
        ),
        (None, ["method=gagpo", "prompt.context=chat"], ["OVERRIDE"]),
    ],
)
def test_the_file_or_the_override_as_typed(
    source: str | None, overrides: list[str], expected: list[str]
) -> None:
    last = f"Set by the override {overrides[-1]!r}." if overrides else ""
    assert told(source, *overrides) == [last if line == "OVERRIDE" else line for line in expected]


def test_a_recipe_and_what_a_program_gives() -> None:
    lines = told(None, ("train.minibatches", 7))
    assert lines == ["Set in the recipe sokoban-tiny: train.groups.", "Set by train.minibatches=7."]


def test_a_key_is_not_repeated() -> None:
    for override in ("api.key_env=sk-secret", "api={key_env: sk-secret}"):
        with pytest.raises(ConfigError) as caught:
            load_config(None, [override])
        assert "secret" not in str(caught.value)
        assert f"Set by the override '{override.partition('=')[0]}=...'." in str(caught.value)


def test_the_settings_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("prompt: {history: -1}\n")
    with pytest.raises(ConfigError) as caught:
        load_run_config(tmp_path, ["eval.tasks=0"])
    assert str(caught.value).splitlines()[-2:] == [
        f"Set in {tmp_path / 'config.yaml'}: prompt.history.",
        "Set by the override 'eval.tasks=0'.",
    ]


def test_a_whole_section_hides_what_files_set_below_it() -> None:
    places: list[Place] = [
        of_file("a.yaml", {"train": {"lr": 1, "groups": 2}}),
        of_override("train", {"groups": 3}, "train={groups: 3}"),
    ]
    assert sentences([Problem("", ("train", "lr"))], places) == []
    assert sentences([Problem("", ("train", "groups"))], places) == [
        "Set by the override 'train={groups: 3}'."
    ]
    assert sentences([Problem("", ("train", "groups"))], places[:1]) == ["Set in a.yaml: train.groups."]


def test_of_many_settings_three_are_named() -> None:
    names = [("prompt", name) for name in "abcde"]
    place = of_file("a.yaml", {"prompt": dict.fromkeys("abcde", 1)})
    told_once = sentences([Problem("", name) for name in names], [place])
    assert told_once == ["Set in a.yaml: prompt.a, prompt.b, prompt.c and 2 more."]


def test_an_error_without_its_places() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("base.yaml", ["seed=x"])
    lines = str(caught.value).splitlines()
    assert without_places(str(caught.value)).splitlines() == lines[:2]
    assert [line[:7] for line in lines[2:]] == ["Set in ", "Set by "]
