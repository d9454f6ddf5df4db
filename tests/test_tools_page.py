"""docs/own-tools.md: the environment of the page keeps the contract, and its settings fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import repro_rl
from repro_rl.config import parse_config
from repro_rl.envs.base import ENVS
from repro_rl.envs.checker import check_env
from support.extending_page import DOCS, blocks, run_blocks

PAGE = DOCS / "own-tools.md"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The environment of the page, whose tasks lie in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("tasks.jsonl").write_text(blocks(PAGE, "jsonl")[0])
    with ENVS.isolated():
        run_blocks(PAGE, {"__name__": "my_tools"})
        yield repro_rl.make("shop", file="tasks.jsonl")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_it_keeps_the_contract(shop: Any, split: str) -> None:
    checks = check_env(shop, split, factory=lambda: repro_rl.make("shop", file="tasks.jsonl"))
    assert [check for check in checks if not check.ok or check.doubt] == []


def test_calls_by_hand(shop: Any) -> None:
    """Three pears at 4 each."""
    _, info = shop.reset(options={"task": "shop/train/0"})
    assert info["progress"] == 0
    seen = []
    for call in ("price(pear)", "times(3, x)", "weigh(pear)", "times(3, 4)", "answer(12)"):
        text, reward, terminated, _, info = shop.step(call)
        seen.append((text, info["valid"]))
    assert seen[0] == ("price(pear) = 4", True)
    assert seen[1][0].startswith("times failed: ValueError")
    assert seen[2] == ("There is no tool 'weigh'.", False)
    assert [valid for _, valid in seen] == [True, False, False, True, True]
    assert seen[3][0] == "times(3, 4) = 12"
    assert (reward, terminated, info["won"], info["progress"]) == (10.0, True, True, 1.0)


def test_a_wrong_answer_ends_the_episode(shop: Any) -> None:
    shop.reset(options={"task": "shop/train/0"})
    _, reward, terminated, truncated, info = shop.step("answer(7)")
    assert (reward, terminated, truncated, info["won"]) == (0.0, True, False, False)


def test_the_settings_fit_the_environment(shop: Any) -> None:
    data = yaml.safe_load(blocks(PAGE, "yaml")[0])
    assert data.pop("plugins") == ["my_tools"]
    config = parse_config(data)
    env = repro_rl.make(config.env.name, **config.env.settings)
    assert len(env.panel(config.eval.split)) >= config.eval.tasks
    assert len(env.panel(config.eval.validation_split)) >= config.eval.validation_tasks
    assert len(env.panel(config.train.split)) >= config.train.groups
