"""docs/your-environment.md: the wrapper of a gymnasium environment keeps the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import repro_rl
from repro_rl.config import parse_config
from repro_rl.envs.base import ENVS
from repro_rl.envs.checker import check_env

PAGE = Path(__file__).parents[1] / "docs" / "your-environment.md"


def section(title: str) -> str:
    """The Python block under a heading."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.fixture
def taxi() -> Any:
    with ENVS.isolated():
        names: dict[str, Any] = {"__name__": "my_env"}
        exec(compile(section("gymnasium"), PAGE.name, "exec"), names)
        yield names


def test_the_gymnasium_wrapper_keeps_the_contract(taxi: Any) -> None:
    checks = check_env(repro_rl.make("taxi"), factory=lambda: repro_rl.make("taxi"))
    assert [check for check in checks if not check.ok or check.doubt] == []


def test_every_first_state_is_in_one_split(taxi: Any) -> None:
    env = repro_rl.make("taxi")
    panels = [env.panel(split) for split in ("train", "validation", "test")]
    contents = [content for panel in panels for content in panel.contents]
    assert len(contents) == len(set(contents))
    assert [len(panel) > 50 for panel in panels] == [True] * 3


def test_the_settings_of_the_page_fit_the_environment(taxi: Any) -> None:
    """A panel has as many tasks as are asked for, and an answer or reflection as many tokens as it needs."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    config = parse_config(yaml.safe_load(text))
    env = repro_rl.make(config.env.name, **config.env.settings)
    assert len(env.panel(config.eval.split)) >= config.eval.tasks
    assert len(env.panel(config.eval.validation_split)) >= config.eval.validation_tasks
    assert len(env.panel(config.train.split)) >= config.train.groups
    assert config.prompt.action_tokens == 1 + 2  # an action of one word, its progress, the end
    assert config.prompt.reflect_new_tokens == 2 * env.max_steps + 1
    assert config.warmup.forward_from < config.warmup.updates


def test_actions_left_by_hand(taxi: Any) -> None:
    """0 - 1 - 2 in a row; from 2 an action ends in 3."""
    table = {
        0: {0: [(1.0, 1, -1, False)]},
        1: {0: [(1.0, 0, -1, False)], 1: [(1.0, 2, -1, False)]},
        2: {0: [(1.0, 3, 20, True)]},
        3: {},
    }
    assert taxi["actions_left"](table) == {3: 0, 2: 1, 1: 2, 0: 3}
