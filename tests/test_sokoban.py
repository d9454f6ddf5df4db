"""SokobanEnv: contract, text, rewards, generator, panels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import repro_rl.envs.sokoban as sokoban_package
from repro_rl.envs.base import make
from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.envs.sokoban.board import canonical, symmetries
from repro_rl.envs.sokoban.generator import RoomSource, Settings, Stream, split_of
from repro_rl.errors import ConfigError, TaskError

# Recorded figures name this digest; if it changes on purpose, say so in the change log.
DEFAULT_TEST_DIGEST = "c00dc2db1063"
DEFAULT_SIZES = {"train": 3000, "validation": 500, "test": 500}


def level_env(tmp_path: Path, text: str, **kwargs) -> SokobanEnv:
    file = tmp_path / "hand.xsb"
    file.write_text(text)
    env = SokobanEnv(levels=str(file), **kwargs)
    env.reset(options={"task": "hand/all/0"})
    return env


STUCK = "######\n#    #\n# $. #\n#@   #\n######\n"  # up, right solves; right, up loses


# ---------------------------------------------------------------- contract


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
def test_any_action_string_is_survived(actions):
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


# ---------------------------------------------------------------- text


def test_styles_of_one_room(tmp_path):
    text = "######\n#.$ @#\n# #$ #\n#  * #\n#   .#\n######\n"
    assert level_env(tmp_path, text).reset(options={"task": "hand/all/0"})[0] == (
        "at:1,4 box:+0,-2 goal:+0,-1 goal:+2,+1 goal:+3,+2 box:+1,-1 goal:-1,-2 goal:+1,+0 goal:+2,+1 "
        "box:+2,-1 goal:-2,-2 goal:+0,+0 goal:+1,+1 wall:+1,-2"
    )
    assert level_env(tmp_path, text, encoding="split").reset(options={"task": "hand/all/0"})[1]["brief"] == (
        "at:r1 at:c4 box:down0 box:left2 goal:down0 goal:left1 goal:down2 goal:right1 goal:down3 goal:right2 "
        "box:down1 box:left1 goal:up1 goal:left2 goal:down1 goal:right0 goal:down2 goal:right1 "
        "box:down2 box:left1 goal:up2 goal:left2 goal:down0 goal:right0 goal:down1 goal:right1"
    )
    assert level_env(tmp_path, text, style="grid").reset(options={"task": "hand/all/0"})[0] == (
        "# # # # # #\n# O X _ P #\n# _ # X _ #\n# _ _ √ _ #\n# _ _ _ O #\n# # # # # #"
    )
    coordinates = level_env(tmp_path, text, style="coordinates").reset(options={"task": "hand/all/0"})[0]
    assert coordinates.splitlines()[1:] == [
        "Player: (1, 4)",
        "Boxes: (1, 2), (2, 3), (3, 3) on a target",
        "Targets: (1, 1), (3, 3), (4, 4)",
        "Inner walls: (2, 2)",
    ]


def test_player_on_target_in_the_grid(tmp_path):
    env = level_env(tmp_path, "#####\n#+$ #\n#####\n", style="grid")
    assert "S" in env.reset(options={"task": "hand/all/0"})[0]
    assert env.step("right")[0].splitlines()[1] == "# O P X #"


@pytest.mark.parametrize("encoding", ["fused", "split"])
def test_vocabulary_covers_what_is_written(encoding):
    env = SokobanEnv(boxes=2, encoding=encoding, test_rooms=60)
    words = list(env.vocabulary())
    assert len(words) == len(set(words))
    written: set[str] = set()
    rng = Stream("vocabulary")
    for task in env.panel("test"):
        observation, info = env.reset(options={"task": task})
        over = False
        while not over:
            written |= set(observation.split()) | set(info["admissible"])
            observation, _, terminated, truncated, info = env.step(
                ("up", "down", "left", "right")[rng.below(4)]
            )
            over = terminated or truncated
        written |= set(observation.split())
    assert written <= set(words)
    assert len(list(SokobanEnv().vocabulary())) == 165


def test_instructions_depend_on_the_style():
    texts = {SokobanEnv(style=style).instructions for style in ("grid", "coordinates", "relative")}
    assert len(texts) == 3
    assert all("up, down, left, right" in text for text in texts)


# ---------------------------------------------------------------- generator and panels


def test_default_panels_are_pinned_disjoint_and_distinct():
    env = SokobanEnv()
    layouts, rooms = {}, {}
    for split, size in DEFAULT_SIZES.items():
        panel = env.panel(split)
        assert len(panel) == size
        assert panel.ids[3] == f"gen-6x6-b1-w1-3-s4-10-seed0/{split}/3"
        drawn = [env.room(task) for task in panel]
        layouts[split] = {canonical(room.layout.text) for room in drawn}
        rooms[split] = {canonical(room.text) for room in drawn}
        assert len(rooms[split]) == size
        assert all(split_of(room.layout.text) == split for room in drawn)
    assert not layouts["train"] & layouts["test"]
    assert not layouts["train"] & layouts["validation"]
    assert not layouts["validation"] & layouts["test"]
    assert env.panel("test").digest[:12] == DEFAULT_TEST_DIGEST


def test_panel_digest_is_the_same_in_another_process():
    code = (
        "from repro_rl.envs.sokoban import SokobanEnv; print(SokobanEnv(test_rooms=40).panel('test').digest)"
    )
    source = str(Path(sokoban_package.__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": "123"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == SokobanEnv(test_rooms=40).panel("test").digest


def test_rooms_do_not_depend_on_the_order_or_number_asked_for():
    one, two = RoomSource(Settings(seed=5)), RoomSource(Settings(seed=5))
    one.room("test", 20)
    late = one.room("train", 30).text
    assert two.room("train", 30).text == late
    assert two.room("train", 3).text == one.room("train", 3).text
    assert RoomSource(Settings(seed=6)).room("train", 3).text != one.room("train", 3).text


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"boxes": 2, "solution": (6, 12)},
        {"boxes": 3, "solution": (6, 15)},
        {"rows": 7, "cols": 5, "walls": (2, 4)},
        {"rows": 8, "cols": 8, "boxes": 2, "walls": (2, 6), "solution": (8, 15)},
        {"rows": 10, "cols": 10, "boxes": 3, "solution": (10, 40), "max_steps": 40},
    ],
)
def test_generated_rooms_are_solved_by_the_expert_in_the_promised_length(kwargs):
    env = SokobanEnv(**kwargs)
    low, high = kwargs.get("solution", (4, 10))
    for number in range(6):
        _, info = env.reset(options={"task": f"{env.set_name}/test/{number}"})
        steps, last, over = 0, 0.0, False
        while not over:
            _, _, terminated, truncated, info = env.step(env.expert())
            assert info["progress"] > last
            steps, last, over = steps + 1, info["progress"], terminated or truncated
        assert info["won"]
        assert low <= steps <= high


def test_walls_and_boxes_are_as_asked():
    source = RoomSource(Settings(walls=(2, 3), boxes=2))
    for number in range(30):
        room = source.room("train", number)
        assert 2 <= len(room.layout.inner_walls) <= 3
        assert len(room.boxes) == 2
        assert not set(room.boxes) & set(room.layout.targets)
        assert room.layout.connected()


def test_too_many_rooms_is_an_error_that_says_what_to_change():
    env = SokobanEnv(rows=4, cols=4, walls=(0, 0), solution=(1, 4), test_rooms=500)
    with pytest.raises(ConfigError, match="test_rooms"):
        env.panel("test")
    with pytest.raises(ConfigError, match="test_rooms"):
        env.panel("test")


def test_instances_share_their_rooms():
    assert SokobanEnv(test_rooms=30).panel("test") is SokobanEnv(test_rooms=30).panel("test")
    task = SokobanEnv().panel("test").ids[0]
    assert SokobanEnv().room(task) is SokobanEnv(style="grid").room(task)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.data())
def test_canonical_form_is_the_same_for_all_symmetries(rows, cols, data):
    line = st.text("#.$ @", min_size=cols, max_size=cols)
    text = "\n".join(data.draw(st.lists(line, min_size=rows, max_size=rows)))
    turned = symmetries(text)
    assert text in turned
    assert {canonical(other) for other in turned} == {canonical(text)}


def test_stream_is_pinned():
    stream = Stream("a", "b")
    assert [stream.below(1000) for _ in range(5)] == [382, 734, 920, 681, 81]
    assert sorted(stream.sample(10, 10)) == list(range(10))
