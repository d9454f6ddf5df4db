"""The environments in SkyRL-Gym, by its own ``make``."""

from __future__ import annotations

import pytest

pytest.importorskip("skyrl_gym", reason="SkyRL-Gym is not installed: pip install '.[skyrl]'")

import skyrl_gym
from omegaconf import OmegaConf
from skyrl_gym.envs.base_text_env import BaseTextEnv
from skyrl_gym.metrics import aggregate_for_environment

from repro_rl.errors import ConfigError
from repro_rl.integrations import skyrl
from repro_rl.integrations.adapters import SKYRL
from support.adapter_cells import an_environment_of_mine, assert_column, works
from support.adapters_page import run_section
from support.chat_families import family_tokenizer

SMALL = {
    "sokoban": {"train_rooms": 8, "test_rooms": 8},
    "alfworld": {"games": 12},
    "webshop": {"generated": [120, 0]},
}


@pytest.fixture(autouse=True)
def registered():
    before = dict(skyrl_gym.registry)
    skyrl.register_envs()
    skyrl.register_envs()  # a second time changes nothing
    yield
    skyrl_gym.registry.clear()
    skyrl_gym.registry.update(before)


def made(env: str, row: dict, **config):
    """As SkyRL's generators make one: a section of its settings, the row's other columns."""
    section = OmegaConf.create({"env_class": f"repro_rl_{env}", "settings": SMALL[env], **config})
    extras = {name: value for name, value in row.items() if name not in ("prompt", "env_class")}
    return skyrl_gym.make(f"repro_rl_{env}", env_config=section, extras=extras)


@pytest.mark.parametrize("env", SMALL)
def test_an_episode_of_the_expert(env: str) -> None:
    row = skyrl.rows(env, "train", 2, **SMALL[env])[1]
    game = made(env, row)
    assert isinstance(game, BaseTextEnv)
    assert row["env_class"] == f"repro_rl_{env}"
    assert row["data_source"] == game.session.panel.label()
    conversation, metadata = game.init(row["prompt"])
    assert metadata["task_id"] == row["task"] == game.session.panel.ids[1]
    (turn,) = conversation
    assert turn["role"] == "user"
    assert turn["content"].startswith(game.session.instructions)
    outputs = []
    while not (outputs and outputs[-1]["done"]):
        outputs.append(game.step(f"<think>x</think><action>{game.session.env.expert()}</action>"))
    assert [output["reward"] for output in outputs] == [0.0] * (len(outputs) - 1) + [10.0]
    assert all(
        output["observations"][0]["content"].startswith(f"Step {t}:")
        for t, output in enumerate(outputs[:-1], 2)
    )
    assert outputs[-1]["observations"] == []
    assert outputs[-1]["metadata"]["won"] is True
    metrics = game.get_metrics()
    assert metrics == {"won": 1, "score": 1, "return": 10, "progress": 1, "steps": len(outputs), "valid": 1}
    failed = {**metrics, "won": 0.0, "valid": 0.5}
    means = aggregate_for_environment(row["env_class"], [metrics, failed])
    assert (means["won"], means["valid"], means["return"]) == (0.5, 0.75, 10.0)
    game.close()
    game.close()


def test_the_trainers_limit_of_turns_is_the_episodes() -> None:
    row = {**skyrl.rows("sokoban", count=1, **SMALL["sokoban"])[0], "max_turns": 3}
    game = made("sokoban", row)
    conversation, _ = game.init(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    )
    assert conversation[0] == {"role": "system", "content": "Be brief."}
    assert conversation[1]["content"].startswith("Hello.\n\nYou are solving a Sokoban puzzle.")
    assert "step 1 of at most 3" in conversation[1]["content"]
    outputs = [game.step("up") for _ in range(3)]  # no tags: not an action
    assert [output["done"] for output in outputs] == [False, False, True]
    assert outputs[-1]["metadata"]["truncated"] is True
    assert outputs[0]["metadata"]["defects"] == ("text_outside_tags", "no_action")
    assert game.get_metrics()["valid"] == 0
    assert made("sokoban", {**row, "max_turns": 99}).max_turns == 15
    assert game.init([{"role": "system", "content": "Hi."}])[0][1]["role"] == "user"


def test_contents_as_lists_of_parts_stay_lists() -> None:
    """The row has the form of the chat template; what the episode adds follows it."""
    pytest.importorskip("tokenizers", reason="the environment of the adapters has no torch and no tokenizers")
    tokenizer = family_tokenizer("chatml")
    begin = tokenizer.chat_template.index("{% for m in")
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tokenizer.chat_template[begin:].replace("m.content", "m.content[0].text")
    )
    row = skyrl.rows("sokoban", count=1, tokenizer=tokenizer, **SMALL["sokoban"])[0]
    plain = skyrl.rows("sokoban", count=1, **SMALL["sokoban"])[0]
    [text] = made("sokoban", plain).init(plain["prompt"])[0]
    game = made("sokoban", row)
    system, user = game.init(row["prompt"])[0]
    assert system == {"role": "system", "content": [{"type": "text", "text": ""}]}
    assert user == {"role": "user", "content": [{"type": "text", "text": text["content"]}]}
    [turn] = game.step("<action>up</action>")["observations"]
    [part] = turn["content"]
    assert part["type"] == "text"
    assert part["text"].startswith("Step 2:")
    assert isinstance(made("sokoban", plain).init([])[0][0]["content"], str)


def test_where_a_row_names_its_task() -> None:
    assert made("sokoban", {"index": 2}).init([])[1]["task_id"].endswith("/train/2")
    assert (
        made("sokoban", {"extra_info": {"index": 1}}, split="test").init([])[1]["task_id"].endswith("/test/1")
    )
    with pytest.raises(ConfigError, match="neither a column 'task' nor 'index'"):
        made("sokoban", {"max_turns": 3})
    with pytest.raises(
        ConfigError, match="repro_rl_sokoban has no option 'setings'; did you mean 'settings'"
    ):
        made("sokoban", {"index": 0}, setings={})


def test_possible_actions_can_be_left_out() -> None:
    assert "Possible actions" in made("sokoban", {"index": 0}).init([])[0][0]["content"]
    assert "Possible actions" not in made("sokoban", {"index": 0}, admissible=False).init([])[0][0]["content"]


def test_the_example_on_the_page() -> None:
    names = run_section("SkyRL-Gym")
    assert names["output"]["metadata"]["action"] == "search[red shoes]"
    assert names["output"]["metadata"]["valid"]
    assert names["env"].max_turns == 10


def test_its_column_of_the_capabilities() -> None:
    table = skyrl.rows("sokoban", split="test", **SMALL["sokoban"])

    def begun(**row):
        env = made("sokoban", {"prompt": [], **row}, split="test")
        return env, *env.init([])

    env, turns, first = begun(task=table[0]["task"])
    text = turns[-1]["content"]
    plan = env.session.env.expert()
    played = env.step(f"<think>so</think><action>{plan}</action>")
    plain = begun(task=table[0]["task"])[0].step(plan)
    short = made("sokoban", table[0], split="test", admissible=False).init([])[0][-1]["content"]
    limited = made("sokoban", table[0], split="test")
    with an_environment_of_mine() as mine:
        skyrl.register_envs(mine)
        own = skyrl_gym.make(f"repro_rl_{mine}", extras={"index": 0}).init([])[0]
    listed = "\n".join(
        f"- {action}" for action in env.session.env.reset(options={"task": first["task_id"]})[1]["admissible"]
    )
    tried = {
        "evaluation on a fixed panel": [row["task"] for row in table]
        == list(limited.session.panel_of("test")),
        "settings of the environment, official data": len(table) == SMALL["sokoban"]["test_rooms"],
        "an environment of your own": bool(own),
        "a task by its id": first["task_id"] == table[0]["task"],
        "a task by its position": works(lambda: begun(index=3)[2]["task_id"] == table[3]["task"]),
        "a random task, by a seed": works(lambda: begun(seed=3)),
        "another split for one episode": works(
            lambda: begun(index=0, split="train")[2]["task_id"] not in [row["task"] for row in table]
        ),
        "actions as they stand": plain["metadata"]["valid"],
        "answers in text, <action>…</action>": played["metadata"]["valid"],
        "actions by tool calls": hasattr(env, "move"),
        "the rules come with the first text": env.session.instructions in text,
        "the possible actions are shown": listed in text,
        "the possible actions can be left out": listed not in short,
        "the environment's reward at every step": isinstance(played["reward"], float),
        "won and score": {"won", "score"} <= set(env.get_metrics()),
        "true progress, where the environment knows it": "progress" in env.get_metrics(),
        "many sessions in one process": begun(index=1)[0].session.env is not env.session.env,
        "a picture of the state for people": hasattr(env, "render"),
    }
    assert_column(SKYRL, tried)
