"""``repro-rl settings NAME`` of recipes, settings files, studies and annotators."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.cli.settings_of import further_names, of_file
from repro_rl.config import load_config, recipe_names
from repro_rl.config.named_parts import find_settings
from repro_rl.config.reference import SectionReference, Setting, run_settings
from repro_rl.demos import ANNOTATORS, BatchAnnotator
from repro_rl.errors import ConfigError
from repro_rl.study.definition import load_study, studies
from support.command import run_command


def described(name: str, kind: str) -> SectionReference:
    (found,) = [item for item in find_settings(name, further_names()) if item.about.startswith(f"{kind}. ")]
    return found


def rows(section: SectionReference) -> dict[str, Setting]:
    return {row.name: row for row in section.settings}


def test_a_recipe_shows_its_settings_beside_the_defaults() -> None:
    found = described("sokoban-tiny", "recipe")
    assert found.about.startswith("recipe. A tiny Qwen3 from scratch on 6x6 Sokoban rooms")
    assert found.about.endswith("'repro-rl settings repro' shows what that sets. What it sets itself:")
    assert found.column == "value"
    lr = rows(found)["train.lr"]
    assert (lr.default, lr.type) == ("0.001", "float > 0")
    assert lr.description.endswith("; default 0.0005")
    style = rows(found)["env.settings.style"]
    assert (style.type, style.default) == ("grid | coordinates | relative", "relative")
    rare = rows(described("sokoban-tiny-rare", "recipe"))
    assert rare.keys() > rows(found).keys()  # those of its base are its own
    assert rare["method.rehearsal_coef"].default == "0.05"


def test_every_recipe_and_study_is_described_and_has_settings_of_a_run() -> None:
    known = run_settings()
    for name in recipe_names():
        section = described(name, "recipe")
        config = load_config(name).model_dump(mode="json")
        for row in section.settings:
            assert row.name in known or row.name.startswith("env.settings."), (name, row.name)
            value = config
            for part in row.name.split("."):
                value = value[part]
            assert row.default == yaml_value(value, row.default), (name, row.name)
    for name in studies():
        section = described(name, "study")
        assert rows(section)["methods"].default.startswith("["), name
        assert f"'repro-rl compare {name}'" in section.about


def yaml_value(value: object, shown: str) -> str:
    """``shown``, where it is ``value`` as YAML."""
    import yaml

    assert yaml.safe_load(shown) == value or str(yaml.safe_load(shown)) == str(value)
    return shown


def test_a_study_shows_its_keys() -> None:
    section = described("credit-zoo", "study")
    found = rows(section)
    assert section.column == "value"
    assert found["recipe"].default == "sokoban-tiny-rare"
    assert found["methods"].default.startswith("[warmup-only, grpo, rloo, gigpo")
    assert found["sweep"].default.startswith("{env_steps: 100000, knobs: {method.gamma: [0.5, 0.95]")
    assert "evaluation" not in found  # left at its default
    assert all(row.description for row in section.settings)
    assert load_study("credit-zoo").recipe == "sokoban-tiny-rare"


def test_an_annotator_says_what_it_reads() -> None:
    http = rows(described("http", "annotator"))
    assert {"api.base_url", "api.model", "api.annotate_tokens", "api.extra"} <= http.keys()
    assert all(row.description for row in http.values())
    # A name of several kinds shows each.
    kinds = [item.about.split(".")[0] for item in find_settings("oracle", further_names())]
    assert kinds == ["method", "source of progress", "annotator"]
    told = described("random", "annotator").about
    assert told.startswith("annotator. Uniform integers: the paper's random-progress demonstrations.")
    assert told.endswith("For demos.annotator=random. It reads no settings of its own.")

    def label(trajectories, context):
        """Mine."""

    ANNOTATORS.register("mine", BatchAnnotator(label))
    assert described("mine", "annotator").about.endswith("It may read any setting.")


def test_a_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: sokoban-tiny\nmethod: grpo\nenv: {settings: {rows: 7}}\ntrain: {lr: 0.1}\n")
    found = of_file(str(file))
    assert "Its method is grpo;" in found.about
    assert (rows(found)["train.lr"].default, rows(found)["env.settings.rows"].default) == ("0.1", "7")
    file.write_text("method: [a]\nenv: [1]\n")  # wrong, and only shown
    assert {name: row.default for name, row in rows(of_file(str(file))).items()} == {
        "method": "[a]",
        "env": "[1]",
    }
    with pytest.raises(ConfigError, match="No config file at"):
        of_file(str(tmp_path / "none.yaml"))


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = run_command(capsys, monkeypatch, "settings", "sokoban-tiny", "alfworld")
    assert code == 0
    assert "sokoban-tiny: recipe. A tiny Qwen3" in out
    assert "alfworld: study. " in out
    assert "alfworld: Settings of the environment" in out
    lines = [line.split() for line in out.splitlines()]
    assert any(line[:3] == ["setting", "type", "value"] for line in lines)
    code, out = run_command(capsys, monkeypatch, "settings", "sokoban-tinny")
    assert code == 2
    assert "did you mean 'sokoban-tiny' or" in " ".join(out.split())
