"""The three styles and their vocabularies."""

from __future__ import annotations

import pytest

from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.envs.sokoban.generator import Stream
from support.sokoban import level_env


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
def test_the_vocabulary_covers_all_observations(encoding):
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
