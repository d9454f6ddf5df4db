"""An error of settings says where the setting is set: in which file, or by which override."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repro_rl.cli.options import read_run_config
from repro_rl.config import Override, load_config, load_run_config
from repro_rl.config.origins import Place, of_file, of_override, sentences, without_places
from repro_rl.config.problems import Problem
from repro_rl.envs.base import register_env
from repro_rl.envs.sokoban.env import SokobanEnv
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


@pytest.mark.parametrize(
    ("source", "overrides", "error", "expected"),
    [
        (
            "env.yaml",
            [],
            "Environment 'sokoban' has no setting 'row'; did you",
            ["Set in env.yaml: env.settings.row."],
        ),
        ("on_env.yaml", [], "has no setting 'row'", ["Set in env.yaml: env.settings.row."]),
        (None, ["env.settings.row=5"], "has no setting 'row'; did you mean 'rows'", ["OVERRIDE"]),
        (None, ["env.settings.rows=3"], "Environment 'sokoban': rows=3; use 4 or more", ["OVERRIDE"]),
        (None, ["env.settings.style=grit"], "style='grit' is unknown; did you mean 'grid'", ["OVERRIDE"]),
        (None, ["env.settings={walls: [3]}"], "walls=[3]: must be two integers", ["OVERRIDE"]),
        (
            "room.yaml",
            ["env.settings.max_steps=3"],
            "Environment 'sokoban': rooms may need 9 moves but max_steps is 3",
            ["Set in room.yaml: env.settings.", "OVERRIDE"],
        ),
        (
            None,
            ["env.name=sokobann"],
            "env.name: Unknown environment 'sokobann'; did you mean 'sok",
            ["OVERRIDE"],
        ),
        ("other.yaml", [], "env.name: Unknown environment 'shop'", ["Set in other.yaml: env.name."]),
        (
            None,
            ["env.name=webshop", "env.settings.generated=[9]"],
            "generated=[9]: Give a list of 2 va",
            ["OVERRIDE"],
        ),
        (
            None,
            ["env.name=alfworld", "env.settings.styl=x"],
            "'alfworld' has no setting 'styl'",
            ["OVERRIDE"],
        ),
        (
            None,
            ["env.name=factory", "env.settings.folder=x", "env.settings.sed=1"],
            "'factory' has no setting 'sed'; did you",
            ["OVERRIDE"],
        ),
        ("factory.yaml", [], "'factory' needs the setting 'folder'", ["Set in factory.yaml: env.name."]),
    ],
)
def test_of_an_environment_and_its_settings(
    source: str | None, overrides: list[str], error: str, expected: list[str]
) -> None:
    Path("env.yaml").write_text("base: sokoban-tiny\nenv: {settings: {row: 5}}\n")
    Path("on_env.yaml").write_text("base: env.yaml\nenv: {settings: {cols: 5}}\n")
    Path("room.yaml").write_text("env: {settings: {solution: [2, 9]}}\n")
    Path("other.yaml").write_text("base: sokoban-tiny\nenv: {name: shop}\n")
    Path("factory.yaml").write_text("env: {name: factory}\n")

    @register_env("factory")
    def factory(folder: str, seed: int = 0) -> SokobanEnv:
        return SokobanEnv(seed=seed)

    with pytest.raises(ConfigError) as caught:
        load_config(source, list(overrides))
    first, *rest = str(caught.value).splitlines()
    assert error in first
    last = f"Set by the override {overrides[-1]!r}." if overrides else ""
    assert [line for line in rest if line.startswith("Set ")] == [
        last if line == "OVERRIDE" else line for line in expected
    ]


def test_a_class_that_sets_some_settings_itself_is_not_judged_by_its_parents_schema() -> None:
    @register_env("long-rooms")
    class LongRooms(SokobanEnv):
        def __init__(self, **settings: Any):
            super().__init__(solution=(2, 3), **{**settings, "seed": settings.pop("start", 0)})

    assert load_config(None, ["env.name=long-rooms", "env.settings.max_steps=4", "env.settings.start=2"])


def test_of_an_environment_of_a_run(tmp_path: Path) -> None:
    """Only who plays needs its environment."""
    (tmp_path / "config.yaml").write_text("env: {name: gone}\n")
    assert load_run_config(tmp_path).env.name == "gone"
    with pytest.raises(ConfigError) as caught:
        read_run_config(tmp_path, None, [])
    assert str(caught.value).startswith("env.name: Unknown environment 'gone'.")
    assert str(caught.value).splitlines()[1:] == [f"Set in {tmp_path / 'config.yaml'}: env.name."]


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
