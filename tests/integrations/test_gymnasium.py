"""The ids in gymnasium: its own checker, vector environments, tasks, and what is drawn."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings, strategies as st

import repro_rl
from repro_rl.envs.text_space import AnyText
from repro_rl.errors import ConfigError, TaskError
from repro_rl.integrations.adapters import GYMNASIUM
from repro_rl.integrations.gymnasium import GymEnv
from support.adapter_cells import an_environment_of_mine, assert_column, works
from support.adapters_page import run_section

IDS = {
    "repro_rl/Sokoban-v0": {"train_rooms": 20},
    "repro_rl/ALFWorld-v0": {"games": 12},
    "repro_rl/WebShop-v0": {"generated": (120, 0)},
}


def made(name: str, **more: Any) -> GymEnv:
    return gymnasium.make(name, **IDS[name], **more).unwrapped


@pytest.mark.parametrize("first", ["gymnasium", "repro_rl"])
def test_the_ids_are_there_in_either_order_of_imports(first: str) -> None:
    """Importing repro_rl alone imports no gymnasium; gymnasium keeps its own loader."""
    second = "repro_rl" if first == "gymnasium" else "gymnasium"
    code = f"""
import sys, importlib, importlib.util
importlib.import_module("{first}")
if "{first}" == "repro_rl":
    assert "gymnasium" not in sys.modules and "numpy" not in sys.modules
importlib.import_module("{second}")
import gymnasium
assert gymnasium.__loader__ is gymnasium.__spec__.loader
assert type(gymnasium.__loader__).__module__ == "_frozen_importlib_external"
assert not [finder for finder in sys.meta_path if "repro_rl" in type(finder).__module__]
assert importlib.util.find_spec("gymnasium").has_location
print(sorted(name for name in gymnasium.registry if name.startswith("repro_rl/")))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted(IDS))


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_own_checker_passes_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made(name))
        check_env(made(name, split="test", render_mode="ansi"))


@pytest.mark.parametrize("name", ["sokoban", "alfworld", "webshop"])
def test_the_checker_passes_for_the_environments_themselves(name: str) -> None:
    """Without an id it cannot try render modes and says so; nothing else is wrong."""
    env = repro_rl.make(
        name,
        **IDS[
            {
                "sokoban": "repro_rl/Sokoban-v0",
                "alfworld": "repro_rl/ALFWorld-v0",
                "webshop": "repro_rl/WebShop-v0",
            }[name]
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)


@pytest.mark.parametrize("name", IDS)
def test_a_whole_episode_by_gymnasiums_interface(name: str) -> None:
    env = made(name)
    observation, info = env.reset(options={"index": 1, "split": "test"})
    assert info["task_id"] == env.session.env.panel("test").ids[1]
    assert observation in env.observation_space
    ended = False
    total = 0.0
    while not ended:
        observation, reward, terminated, truncated, info = env.step(env.session.env.expert() or "")
        total += reward
        ended = terminated or truncated
    assert (info["won"], terminated, truncated, total) == (True, True, False, 10.0)
    with pytest.raises(TaskError, match="call reset before step"):
        env.step("look")
    env.reset(options={"task": info["task_id"]})
    ends = [env.step("nonsense")[2:] for _ in range(env.session.max_steps)]
    assert not any(terminated or truncated for terminated, truncated, _ in ends[:-1])
    terminated, truncated, info = ends[-1]
    assert (terminated, truncated, info["valid"], info["won"]) == (False, True, False, False)


def test_seeds_draw_tasks_of_the_split() -> None:
    env = made("repro_rl/Sokoban-v0", split="test", test_rooms=40)
    drawn = [env.reset(seed=seed)[1]["task_id"] for seed in range(30)]
    assert drawn == [env.reset(seed=seed)[1]["task_id"] for seed in range(30)]
    assert len(set(drawn)) > 10
    assert set(drawn) <= set(env.session.panel.ids)


def test_what_cannot_be_chosen() -> None:
    env = made("repro_rl/Sokoban-v0")
    with pytest.raises(ConfigError, match="no option 'tasks'; did you mean 'task'"):
        env.reset(options={"tasks": "x"})
    with pytest.raises(TaskError, match="no split 'tests'; did you mean 'test'"):
        env.reset(options={"split": "tests"})
    with pytest.raises(ConfigError, match="no setting 'max_step'"):
        gymnasium.make("repro_rl/ALFWorld-v0", max_step=3)
    with pytest.raises(ConfigError, match="render_mode is 'human'; it must be \"ansi\" or None"):
        GymEnv("sokoban", render_mode="human")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments_give_what_single_ones_give(mode: str) -> None:
    """Texts too: gymnasium's own Text space stays empty in its asynchronous vector environment."""
    name = "repro_rl/ALFWorld-v0"
    vector = gymnasium.make_vec(name, num_envs=2, vectorization_mode=mode, max_steps=4, **IDS[name])
    single = [made(name, max_steps=4) for _ in range(2)]
    try:
        observations, info = vector.reset(seed=[3, 4])
        expected = [env.reset(seed=seed) for env, seed in zip(single, (3, 4), strict=True)]
        assert list(observations) == [observation for observation, _ in expected]
        assert observations in vector.observation_space
        for number in range(4):
            actions = tuple(str(possible[number]) for possible in info["admissible"])
            observations, rewards, terminated, truncated, info = vector.step(actions)
            steps = [env.step(action) for env, action in zip(single, actions, strict=True)]
            assert list(observations) == [step[0] for step in steps]
            assert info["progress"].tolist() == pytest.approx([step[4]["progress"] for step in steps])
            assert rewards.tolist() == [step[1] for step in steps]
        assert truncated.all()
        assert not terminated.any()
        assert len(vector.action_space.sample()) == 2
    finally:
        vector.close()


def test_a_random_agent_draws_possible_actions() -> None:
    env = made("repro_rl/WebShop-v0")
    env.action_space.seed(0)
    _, info = env.reset(options={"index": 0})
    assert env.action_space.sample() == f"search[{info['goal']}]"
    ended = False
    while not ended:
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        ended = terminated or truncated
        assert info["valid"]
    assert "go to desk 1" in env.action_space
    assert 7 not in env.action_space


def test_what_is_drawn() -> None:
    """A board whatever the style, all that can be seen in a room, the page line by line; by hand."""
    sokoban = made("repro_rl/Sokoban-v0", style="relative", render_mode="ansi")
    assert sokoban.render() is None
    sokoban.reset(options={"index": 0})
    symbols = {"#": "██", "_": "  ", "O": "··", "P": "@ ", "S": "@·", "X": "[]", "√": "{}"}
    grid = made("repro_rl/Sokoban-v0").reset(options={"index": 0})[0]
    board = "\n".join("".join(symbols[cell] for cell in row.split()) for row in grid.splitlines())
    assert sokoban.render().startswith(f"{board}\n@ you")
    assert made("repro_rl/Sokoban-v0").render() is None  # without a render mode

    alfworld = made("repro_rl/ALFWorld-v0", render_mode="ansi")
    _, info = alfworld.reset(options={"index": 0})
    start = alfworld.render().splitlines()
    assert start[0] == f"Your task is to: {info['goal']}"
    assert start[1].startswith("In this room: ")
    assert start[2:] == ["You are in the middle of the room.", "You are not carrying anything."]
    place = next(action for action in info["admissible"] if action.startswith("go to "))[len("go to ") :]
    told = alfworld.step(f"go to {place}")[0]
    lines = alfworld.render().splitlines()
    assert lines[2].startswith("You are facing the ")
    assert told.partition(". ")[2] in lines
    anchor = alfworld.session.info["anchor"]
    alfworld.render()
    assert alfworld.step("nonsense")[4]["anchor"] == anchor  # looking changes nothing

    webshop = made("repro_rl/WebShop-v0", style="words", render_mode="ansi")
    _, info = webshop.reset(options={"index": 0})
    assert info["goal"] in webshop.render()
    assert "[button] Search [button_]" in webshop.render()


def test_an_environment_without_a_picture_shows_its_observation() -> None:
    class Plain(repro_rl.TextEnv):
        name, max_steps = "plain", 2

        def panel(self, split):
            return repro_rl.TaskPanel("plain", split, ("a",), ("a",))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            info = {"task_id": "a", "goal": "Wait.", "admissible": [], "anchor": 0, "valid": True}
            return "waiting", {**info, "won": False, "score": 0.0, "progress": None}

        def step(self, action):
            return "done", 0.0, True, False, self.reset()[1]

        def expert(self):
            return None

    repro_rl.register_env("plain")(Plain)
    env = GymEnv("plain", render_mode="ansi")
    env.reset()
    assert env.render() == "waiting"
    assert isinstance(env.action_space.sample(), str)  # no action is admissible


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec=None), max_size=20), min_size=2, max_size=2))
def test_texts_come_through_shared_memory_as_they_are(texts: list[str]) -> None:
    from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

    space = AnyText(20)
    memory = create_shared_memory(space, n=2)
    view = read_from_shared_memory(space, memory, n=2)
    assert tuple(view) == ("", "")
    for index, text in enumerate(texts):
        write_to_shared_memory(space, index, text, memory)
    assert tuple(view) == tuple(texts)
    assert view[1:] == tuple(texts[1:])
    write_to_shared_memory(space, 0, "x", memory)
    assert view[0] == "x"


def test_a_text_space_holds_every_text_up_to_its_length() -> None:
    space = AnyText(4, seed=1)
    assert all(text in space for text in ("", "ab c", "ü√\n"))
    assert all(value not in space for value in ("abcde", 3, None, b"ab"))
    assert all(space.sample() in space for _ in range(20))
    assert np.all([len(space.sample()) <= 4 for _ in range(20)])


def test_the_example_on_the_page() -> None:
    names = run_section("gymnasium")
    assert names["env"].render().endswith("{} box on a target")
    assert names["observation"].removeprefix("Nothing happened.\n").startswith("#")


def test_its_column_of_the_capabilities() -> None:
    env = gymnasium.make("repro_rl/Sokoban-v0", train_rooms=8, test_rooms=8, max_steps=14, render_mode="ansi")
    raw = env.unwrapped
    train, test = raw.session.panel_of("train"), raw.session.panel_of("test")

    def begun(**options: Any) -> str:
        return env.reset(options=options)[1]["task_id"]

    first, info = env.reset(seed=3)
    plan = raw.session.env.expert()
    _, reward, *_, after = env.step(plan)
    env.reset(seed=3)
    answered = env.step(f"<action>{plan}</action>")[4]["valid"]
    with an_environment_of_mine() as mine:
        own = works(lambda: GymEnv(mine, train_rooms=8).reset()[0])
    several = gymnasium.make_vec("repro_rl/Sokoban-v0", num_envs=3, vectorization_mode="sync", train_rooms=8)
    tried = {
        "evaluation on a fixed panel": [begun(index=i, split="test") for i in range(8)] == list(test),
        "settings of the environment, official data": raw.session.max_steps == 14,
        "an environment of your own": own,
        "a task by its id": works(lambda: begun(task=train.ids[5]) == train.ids[5]),
        "a task by its position": works(lambda: begun(index=5) == train.ids[5]),
        "a random task, by a seed": env.reset(seed=7)[1]["task_id"] == env.reset(seed=7)[1]["task_id"],
        "another split for one episode": works(lambda: begun(split="test") in test),
        "actions as they stand": after["valid"],
        "answers in text, <action>…</action>": answered,
        "actions by tool calls": hasattr(env.unwrapped, "move"),
        "the rules come with the first text": raw.session.instructions in first,
        "the possible actions are shown": plan in info["admissible"],
        "the possible actions can be left out": not all(a in first for a in info["admissible"]),
        "the environment's reward at every step": isinstance(reward, float),
        "won and score": {"won", "score"} <= set(after),
        "true progress, where the environment knows it": after["progress"] is not None,
        "many sessions in one process": len(several.reset(seed=0)[0]) == 3,
        "a picture of the state for people": "@" in (env.render() or "") or "+" in (env.render() or ""),
    }
    assert_column(GYMNASIUM, tried)
