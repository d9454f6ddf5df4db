"""The classes for TRL's environment_factory, without TRL: tools, texts, rewards."""

from __future__ import annotations

import inspect

import pytest
from transformers.utils import get_json_schema

from repro_rl.errors import ConfigError, EnvError, TaskError
from repro_rl.integrations.trl import (
    CALLS,
    ALFWorldTools,
    SokobanTools,
    ToolEnv,
    WebShopTools,
    progress,
    score,
    won,
)

TOOLS = {
    SokobanTools: {"move": ["direction"]},
    ALFWorldTools: {"act": ["command"]},
    WebShopTools: {"search": ["query"], "click": ["name"]},
}
SMALL = {
    SokobanTools: {"train_rooms": 8},
    ALFWorldTools: {"games": 12},
    WebShopTools: {"generated": (120, 0)},
}


def expert_call(env: ToolEnv) -> str:
    """What the tool answers to the expert's next action."""
    action = env._session.env.expert()
    if isinstance(env, SokobanTools):
        return env.move(action)
    if isinstance(env, ALFWorldTools):
        return env.act(action)
    verb, _, rest = action.partition("[")
    return env.search(rest[:-1]) if verb == "search" else env.click(rest[:-1])


@pytest.mark.parametrize("kind", TOOLS)
def test_public_methods_are_the_tools(kind: type[ToolEnv]) -> None:
    """As TRL lists them, with the schema that transformers reads off their types and docstrings."""
    public = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
    assert public == {"reset", "get_reward", *TOOLS[kind]}
    for name, arguments in TOOLS[kind].items():
        function = get_json_schema(getattr(kind.configured(**SMALL[kind])(), name))["function"]
        assert function["name"] == name
        assert list(function["parameters"]["properties"]) == arguments == function["parameters"]["required"]
        assert all(
            value["type"] == "string" and value["description"]
            for value in function["parameters"]["properties"].values()
        )


@pytest.mark.parametrize("kind", TOOLS)
def test_an_episode_by_tool_calls(kind: type[ToolEnv]) -> None:
    small = kind.configured(split="test", **SMALL[kind])
    row = small.rows(2)[1]
    env = small()
    assert row["prompt"][0]["content"] == f"{env._session.instructions}\n\n{CALLS}"
    text = env.reset(**row)
    assert text.startswith("\n\nYour task: ")
    assert "Possible actions:" in text
    assert env.get_reward() == 0.0
    while not env._session.done:
        last = expert_call(env)
    assert last.endswith("The episode is over: won.")
    assert env.get_reward() == 10.0
    again = (
        env.act("look")
        if kind is ALFWorldTools
        else env.move("up")
        if kind is SokobanTools
        else env.click("x")
    )
    assert again == "The episode is over: won."
    assert env.get_reward() == 10.0
    fresh = small()
    fresh.reset(**row)
    assert [won([env, fresh]), score([env, fresh]), progress([env, fresh])] == [[1.0, 0.0]] * 3
    assert (won.__name__, score.__name__, progress.__name__) == ("won", "score", "progress")
    assert env.reset(**row) == text  # instances are used again


def test_a_failed_episode_has_no_reward(caplog) -> None:
    env = SokobanTools.configured(train_rooms=2)()
    env.reset(index=0)
    env._session.env.step = lambda action: (_ for _ in ()).throw(ConnectionResetError("gone"))
    with pytest.raises(EnvError, match="ConnectionResetError at step 1: gone"):
        env.move("up")
    assert "an episode of sokoban failed and gets no reward" in caplog.text
    assert env.get_reward() is None
    assert won([env]) == [None]
    with pytest.raises(TaskError, match="call reset before step"):
        env.move("up")


def test_a_row_must_name_its_task() -> None:
    with pytest.raises(ConfigError, match=r"neither a column 'task' nor 'index'.*SokobanTools\.rows\(\)"):
        SokobanTools.configured(train_rooms=2)().reset(prompt=[{"role": "user", "content": "x"}])
    with pytest.raises(TaskError, match="2 tasks, 5 were asked for"):
        SokobanTools.configured(train_rooms=2).rows(5)


def test_settings_belong_to_the_class_that_was_configured() -> None:
    small = SokobanTools.configured(split="test", test_rooms=3, max_steps=12)
    assert small.__name__ == "SokobanTools"  # under which TRL records the reward
    assert small()._session.max_steps == 12
    assert len(small.rows()) == 3
    assert SokobanTools.settings == {}
