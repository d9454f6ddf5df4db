"""SokobanEnv: contract, rewards, errors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.envs.base import make
from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.errors import ConfigError, TaskError
from support.sokoban import level_env

STUCK = "######\n#    #\n# $. #\n#@   #\n######\n"  # up, right solves; right, up loses


def test_reset_and_win(tmp_path):
    env = level_env(tmp_path, STUCK)
    observation, info = env.reset(options={"task": "hand/all/0"})
    assert observation == "at:3,1 box:-1,+1 goal:+0,+1"
    assert info == {
        "task_id": "hand/all/0",
        "goal": "Push every box onto a target.",
        "admissible": ["up", "right"],
        "anchor": "8:5",
        "valid": True,
        "won": False,
        "score": 0.0,
        "progress": 0.0,
        "brief": "at:3,1 box:-1,+1 goal:+0,+1",
    }
    assert env.expert() == "up"
    _, reward, terminated, truncated, info = env.step("up")
    assert (reward, terminated, truncated, info["progress"]) == (0.0, False, False, 0.5)
    _, reward, terminated, truncated, info = env.step(" Right\n")
    assert (reward, terminated, truncated) == (10.0, True, False)
    assert (info["won"], info["score"], info["progress"], info["valid"]) == (True, 1.0, 1.0, True)
    assert env.expert() is None
    with pytest.raises(TaskError, match="call reset"):
        env.step("up")


def test_deadlock_has_no_progress_and_no_expert(tmp_path):
    env = level_env(tmp_path, STUCK)
    env.step("right")
    info = env.step("up")[4]
    assert info["progress"] == 0.0
    assert env.expert() is None


def test_blocked_and_unknown_actions_change_nothing(tmp_path):
    env = level_env(tmp_path, STUCK)
    before = env.reset(options={"task": "hand/all/0"})[0]
    for action in ("left", "down", "jump", "", "up up", None):
        observation, reward, _, _, info = env.step(action)
        assert (observation, reward, info["valid"]) == (before, 0.0, False)


@pytest.mark.parametrize("style", ["grid", "coordinates"])
def test_nothing_happened_only_in_verbose_styles(tmp_path, style):
    env = level_env(tmp_path, STUCK, style=style)
    before = env.reset(options={"task": "hand/all/0"})[0]
    observation, *_, info = env.step("left")
    assert observation == "Nothing happened.\n" + before
    assert info["brief"] == before
    assert not env.step("up")[0].startswith("Nothing")


def test_truncation_and_step_before_reset(tmp_path):
    env = level_env(tmp_path, STUCK, max_steps=3)
    assert [env.step("left")[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(TaskError):
        env.step("left")
    with pytest.raises(TaskError):
        SokobanEnv().step("up")
    assert SokobanEnv().expert() is None


def test_win_on_the_last_step_is_no_truncation(tmp_path):
    env = level_env(tmp_path, STUCK, max_steps=2)
    env.step("up")
    assert env.step("right")[2:4] == (True, False)


def test_gym_reward(tmp_path):
    text = "########\n#@$.$. #\n########\n"  # first box on, second box on only after the first is off
    env = level_env(tmp_path, text, reward="gym")
    assert env.step("left")[1] == pytest.approx(-0.1)
    assert env.step("right")[1] == pytest.approx(0.9)  # box onto its target
    env = level_env(tmp_path, "#######\n#@$.  #\n#  $. #\n#     #\n#######\n", reward="gym", max_steps=30)
    assert env.step("right")[1] == pytest.approx(0.9)
    assert env.step("right")[1] == pytest.approx(-1.1)  # pushed off again
    env = level_env(tmp_path, STUCK, reward="gym")
    assert env.step("up")[1] == pytest.approx(-0.1)
    assert env.step("right")[1] == pytest.approx(-0.1 + 1 + 10)


def test_score_counts_boxes_on_targets(tmp_path):
    env = level_env(tmp_path, "######\n#@$ .#\n#    #\n# $ .#\n######\n")
    env.step("right")
    assert env.step("right")[4]["score"] == 0.5


def test_reset_without_a_task_follows_the_seed():
    env = SokobanEnv(train_rooms=50)
    first = env.reset(seed=7)[1]["task_id"]
    assert first.startswith("gen-6x6-b1-w1-3-s4-10-seed0/train/")
    assert SokobanEnv(train_rooms=50).reset(seed=7)[1]["task_id"] == first
    assert len({env.reset()[1]["task_id"] for _ in range(20)}) > 5


@pytest.mark.parametrize(
    "task",
    [
        "gen-6x6-b1-w1-3-s4-10-seed0/train/3000",
        "gen-6x6-b1-w1-3-s4-10-seed0/train/-1",
        "gen-6x6-b1-w1-3-s4-10-seed0/train/x",
        "gen-6x6-b1-w1-3-s4-10-seed0/train/²",
        "gen-6x6-b1-w1-3-s4-10-seed0/dev/0",
        "gen-6x6-b1-w1-3-s4-10-seed1/train/0",
        "",
        17,
    ],
)
def test_unknown_tasks(task):
    with pytest.raises(TaskError):
        SokobanEnv().reset(options={"task": task})


def test_unknown_split_names_the_nearest():
    with pytest.raises(TaskError, match="did you mean 'validation'"):
        SokobanEnv().panel("validatoin")


def test_bad_settings():
    for kwargs, message in (
        ({"style": "relativ"}, "did you mean 'relative'"),
        ({"reward": "dense"}, "win"),
        ({"encoding": "x"}, "fused"),
        ({"rows": 3}, "rows"),
        ({"boxes": 0}, "boxes"),
        ({"walls": (3, 1)}, "walls"),
        ({"walls": 3}, "two integers"),
        ({"solution": (0, 4)}, "solution"),
        ({"solution": (4, 20)}, "max_steps"),
        ({"max_steps": 0}, "max_steps"),
        ({"boxes": 8}, "fit"),
        ({"test_rooms": -1}, "test_rooms"),
    ):
        with pytest.raises(ConfigError, match=message):
            SokobanEnv(**kwargs)


def test_a_subclass_has_panels_of_its_own_name():
    """Panels of generated rooms are kept: whichever class asked first gave its name to both."""

    class Renamed(SokobanEnv):
        name = "renamed"

    panels = [kind(seed=77, test_rooms=2).panel("test") for kind in (Renamed, SokobanEnv, Renamed)]
    assert [panel.env for panel in panels] == ["renamed", "sokoban", "renamed"]
    assert panels[0].contents == panels[1].contents
    assert panels[0] is panels[2]


def test_registered():
    env = make("sokoban", walls=[1, 2], test_rooms=3)  # ranges come as lists from YAML
    assert isinstance(env, SokobanEnv)
    assert len(env.panel("test")) == 3
    with pytest.raises(ConfigError, match="did you mean 'boxes'"):
        make("sokoban", boxs=2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=30), st.sampled_from(["up", "down", "left", "right"])), max_size=20)
)
def test_no_action_string_raises(actions):
    env = SokobanEnv(boxes=2, train_rooms=5, validation_rooms=5, test_rooms=5, style="grid")
    env.reset(options={"task": f"{env.set_name}/test/{len(actions) % 5}"})
    for action in actions:
        observation, _reward, terminated, truncated, info = env.step(action)
        assert isinstance(observation, str)
        assert 0 <= info["progress"] <= 1
        if action.strip().lower() not in ("up", "down", "left", "right"):
            assert not info["valid"]
        if terminated or truncated:
            break
