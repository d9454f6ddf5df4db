"""Episodes that were played under other settings of the environment are refused, and the setting is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repro_rl.config import DemosSection, EnvSection, load_config
from repro_rl.demos import collect_demos
from repro_rl.demos.environment import check_environment
from repro_rl.envs.base import make
from repro_rl.errors import ConfigError, DataError


def made_with(folder: Path, name: str, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    made = {"settings": {"env": {"name": name, "settings": settings}}}
    (folder / "demos.json").write_text(json.dumps(made))
    return folder


def env(name: str, **settings: Any) -> EnvSection:
    return EnvSection(name=name, settings=settings)


def test_another_environment_is_refused(tmp_path: Path) -> None:
    check_environment(tmp_path, env("alfworld"))  # made elsewhere
    made_with(tmp_path, "sokoban")
    check_environment(tmp_path, env("sokoban"))
    with pytest.raises(ConfigError, match=r"env\.name: 'sokoban' there, 'alfworld' now"):
        check_environment(tmp_path, env("alfworld"))


@pytest.mark.parametrize("content", ["{", '{"settings": {}}', '{"settings": {"env": {"name": 3}}}'])
def test_broken_settings_of_demonstrations_name_their_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "demos.json").write_text(content)
    with pytest.raises(DataError, match=r"demos\.json"):
        check_environment(tmp_path, env("alfworld"))


@pytest.mark.parametrize(
    ("name", "there", "now", "named"),
    [
        ("webshop", {"style": "text"}, {"style": "compact"}, "style: 'text' there, 'compact' now"),
        ("alfworld", {"version": "0.3"}, {}, "version: '0.3' there, '0.4' now"),
        ("sokoban", {}, {"encoding": "split"}, "encoding: 'fused' there, 'split' now"),
        (
            "sokoban",
            {"max_steps": 15},
            {"max_steps": 20, "style": "grid"},
            "style: 'relative' there, 'grid' now",
        ),
        ("not-registered", {"size": 3}, {}, "size: 3 there, None now"),
    ],
)
def test_other_settings_are_refused_with_both_values(
    tmp_path: Path, name: str, there: dict[str, Any], now: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match="of another environment") as caught:
        check_environment(made_with(tmp_path, name, **there), env(name, **now))
    assert f"env.settings.{named}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "there", "now"),
    [
        ("alfworld", {"data": "learn"}, {"data": "practise"}),
        ("alfworld", {"data": "learn", "engine": "native"}, {"data": "learn", "engine": "textworld"}),
        ("webshop", {"data": "a"}, {"data": "b", "goals": "g.jsonl"}),
        ("sokoban", {"walls": [1, 3]}, {"walls": (1, 3), "max_steps": 15}),  # the same, and a default
        ("sokoban", {"rows": 6, "boxes": 1}, {"rows": 8, "boxes": 2, "max_steps": 30, "seed": 4}),
        ("alfworld", {"games": 100, "max_steps": 18}, {"data": "d", "max_steps": 12}),
        ("alfworld", {"version": 0.4}, {"version": "0.4"}),
        ("sokoban", {"style": "grid", "gone": 1}, {"style": "grid", "gone": 1}),
        ("not-registered", {"size": 3}, {"size": 3}),
    ],
)
def test_tasks_engines_and_defaults_may_differ(
    tmp_path: Path, name: str, there: dict[str, Any], now: dict[str, Any]
) -> None:
    check_environment(made_with(tmp_path, name, **there), env(name, **now))


def test_episodes_that_a_run_recorded_under_other_settings_are_refused(tmp_path: Path) -> None:
    rooms = {"train_rooms": 12, "validation_rooms": 2, "test_rooms": 2, "style": "grid"}
    (tmp_path / "config.yaml").write_text(
        json.dumps({"env": {"name": "sokoban", "settings": {**rooms, "style": "relative"}}})
    )
    config = load_config(None, [f"env.settings={json.dumps(rooms)}"])
    sokoban = make("sokoban", **rooms)
    section = DemosSection(expert=1, winning=0, failing=0, recorded=(str(tmp_path),))
    with pytest.raises(ConfigError, match="has recorded episodes of another environment") as caught:
        collect_demos(sokoban, sokoban.panel("train").ids, section, seed=0, config=config)
    assert "env.settings.style: 'relative' there, 'grid' now" in str(caught.value)
