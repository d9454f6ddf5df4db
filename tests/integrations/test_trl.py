"""The classes for TRL's environment_factory, without TRL: tools, texts, rewards."""

from __future__ import annotations

import inspect

import pytest
from transformers.utils import get_json_schema

from repro_rl.errors import ConfigError, EnvError, TaskError
from repro_rl.integrations.adapters import TRL
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
from support.adapter_cells import an_environment_of_mine, assert_column, works
from support.chat_families import family_tokenizer

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


def test_rows_have_the_form_that_the_chat_template_wants() -> None:
    """TRL adds what ``reset`` returns to the last message, as a part where its content is a list."""
    small = SokobanTools.configured(**SMALL[SokobanTools])
    [plain] = small.rows(1)[0]["prompt"]
    tokenizer = family_tokenizer("chatml")
    assert small.rows(1, tokenizer)[0]["prompt"] == [plain]
    begin = tokenizer.chat_template.index("{% for m in")
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tokenizer.chat_template[begin:].replace("m.content", "m.content[0].text")
    )
    system, user = small.rows(1, tokenizer)[0]["prompt"]
    assert system == {"role": "system", "content": [{"type": "text", "text": ""}]}
    assert user == {"role": "user", "content": [{"type": "text", "text": plain["content"]}]}
    assert [row["task"] for row in small.rows(3, tokenizer)] == [row["task"] for row in small.rows(3)]


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


def test_its_column_of_the_capabilities() -> None:
    kind = SokobanTools.configured(split="test", test_rooms=8, train_rooms=8)
    rows = kind.rows()
    env = kind()
    text = env.reset(task=rows[0]["task"])
    plan = env._session.env.expert()
    listed = "\n".join(f"- {action}" for action in env._session.last.admissible)
    played = env.move(plan)
    first = env._session.last

    def begun(**row):
        env.reset(**row)
        return env._session.last.task_id

    with an_environment_of_mine() as mine:
        own = type("Mine", (ToolEnv,), {"env": mine, "settings": {"train_rooms": 8}})().reset(index=0)
    tried = {
        "evaluation on a fixed panel": [row["task"] for row in rows] == list(env._session.panel),
        "settings of the environment, official data": len(rows) == 8,
        "an environment of your own": bool(own),
        "a task by its id": begun(task=rows[5]["task"]) == rows[5]["task"],
        "a task by its position": begun(index=5) == rows[5]["task"],
        "a random task, by a seed": works(lambda: begun(seed=3)),
        "another split for one episode": works(lambda: begun(index=0, split="train") != rows[0]["task"]),
        "actions as they stand": hasattr(env, "step"),
        "answers in text, <action>…</action>": hasattr(env, "answer"),
        "actions by tool calls": first.valid and played.startswith(first.observation),
        "the rules come with the first text": env._session.instructions in rows[0]["prompt"][-1]["content"],
        "the possible actions are shown": listed in text,
        "the possible actions can be left out": works(
            lambda: listed not in SokobanTools.configured(admissible=False)().reset(index=0)
        ),
        "the environment's reward at every step": not isinstance(played, str),
        "won and score": (won([env]), score([env])) == ([0.0], [0.0]),
        "true progress, where the environment knows it": isinstance(progress([env])[0], float),
        "many sessions in one process": kind()._session.env is not env._session.env,
        "a picture of the state for people": hasattr(env, "render"),
    }
    assert_column(TRL, tried)
