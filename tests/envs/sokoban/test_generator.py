"""The room generator: panels, splits, determinism."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import repro_rl.envs.sokoban as sokoban_package
from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.envs.sokoban.board import canonical
from repro_rl.envs.sokoban.generator import RoomSource, Stream, split_of
from repro_rl.envs.sokoban.settings import RoomSettings
from repro_rl.errors import ConfigError

# Recorded figures name this digest; if it changes on purpose, say so in the change log.
DEFAULT_TEST_DIGEST = "c00dc2db1063"


DEFAULT_SIZES = {"train": 3000, "validation": 500, "test": 500}


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


def test_rooms_do_not_depend_on_the_order_of_requests():
    one, two = RoomSource(RoomSettings(seed=5)), RoomSource(RoomSettings(seed=5))
    one.room("test", 20)
    late = one.room("train", 30).text
    assert two.room("train", 30).text == late
    assert two.room("train", 3).text == one.room("train", 3).text
    assert RoomSource(RoomSettings(seed=6)).room("train", 3).text != one.room("train", 3).text


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
def test_the_expert_solves_generated_rooms_within_the_solution_range(kwargs):
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


def test_walls_and_boxes_follow_the_settings():
    source = RoomSource(RoomSettings(walls=(2, 3), boxes=2))
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


def test_stream_is_pinned():
    stream = Stream("a", "b")
    assert [stream.below(1000) for _ in range(5)] == [382, 734, 920, 681, 81]
    assert sorted(stream.sample(range(10), 10)) == list(range(10))
