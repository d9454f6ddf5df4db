"""docs/your-environment.md: an OpenEnv server as an environment here, with OpenEnv's own client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openenv", reason="openenv is not installed: pip install '.[openenv]'")

import repro_rl
from repro_rl.envs.base import ENVS
from repro_rl.envs.checker import check_env
from support.openenv_server import serving

PAGE = Path(__file__).parents[3] / "docs" / "your-environment.md"


@pytest.fixture
def url() -> Iterator[str]:
    """A server of Sokoban, and the page's environment ``remote``."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## OpenEnv\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "my_env"}
    with ENVS.isolated(), serving("sokoban", {"max_steps": 15}) as address:
        exec(compile(code, PAGE.name, "exec"), names)
        yield address


def test_a_server_keeps_the_contract_but_for_its_expert(url: str) -> None:
    env, other = (repro_rl.make("remote", url=url, max_steps=15) for _ in range(2))
    checks = check_env(env, tasks=3, factory=lambda: other)
    assert [check.name for check in checks if not check.ok] == ["expert wins"]
    assert [check.detail for check in checks if check.doubt] == []
    for one in (env, other):
        one.close()


def test_a_won_game_pays(url: str) -> None:
    """Played by the expert of the same room here, which is found by its first picture."""
    env = repro_rl.make("remote", url=url, max_steps=15)
    ours = repro_rl.make("sokoban", style="grid", max_steps=15)
    first = env.reset(options={"task": "remote/test/1100"})[0]
    for task in ours.panel("train").ids:
        if ours.reset(options={"task": task})[0] == first:
            break
    reward, over = 0.0, False
    while not over:
        action = ours.expert()
        assert action is not None
        ours.step(action)
        _, reward, over, truncated, info = env.step(action)
    assert (reward, truncated, info["won"], info["score"]) == (10.0, False, True, 1.0)
    env.close()
