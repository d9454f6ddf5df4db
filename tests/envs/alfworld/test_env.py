"""The ALFWorld environment: contract, panels, progress, both verbs, official trees."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import repro_rl
from repro_rl.envs.alfworld import AlfworldEnv
from repro_rl.envs.alfworld.households import household
from repro_rl.envs.checker import check_env
from repro_rl.errors import ConfigError, DataError, TaskError


def house(**more: Any) -> AlfworldEnv:
    env = repro_rl.make("alfworld", **{"games": 30, **more})
    assert isinstance(env, AlfworldEnv)
    return env


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of files in the official layout, holding generated games."""
    for split in ("train", "valid_seen", "valid_unseen"):
        for number in range(6):
            home = household(split, number)
            path = tmp_path / "json_2.1.1" / home.id / "game.tw-pddl"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(home.data))
    return tmp_path


def test_the_contract_holds_for_households_and_for_files(tree: Path) -> None:
    for factory in (partial(house), partial(repro_rl.make, "alfworld", data=str(tree))):
        for check in check_env(factory(), tasks=6, factory=factory):
            assert check.ok, f"{check.name}: {check.detail}"


def test_the_same_games_from_files_and_from_the_generator(tree: Path) -> None:
    files = repro_rl.make("alfworld", data=str(tree))
    generated = house()
    for task in files.panel("valid_unseen"):
        assert files.reset(options={"task": task}) == generated.reset(options={"task": task})
    assert set(files.panel("valid_unseen").contents) <= set(generated.panel("valid_unseen").contents)


def test_splits_have_two_names_and_no_common_game() -> None:
    env = house()
    assert env.panel("test").ids == env.panel("valid_unseen").ids
    assert env.panel("validation").ids == env.panel("valid_seen").ids
    assert env.panel("test").digest == env.panel("valid_unseen").digest
    panels = [set(env.panel(split).contents) for split in ("train", "valid_seen", "valid_unseen")]
    assert len(panels[0] | panels[1] | panels[2]) == sum(map(len, panels))
    assert house(seed=1).panel("test").digest != env.panel("test").digest
    with pytest.raises(TaskError, match="no split 'valid_unsen'; did you mean 'valid_unseen'"):
        env.panel("valid_unsen")


def test_the_put_command_of_version_0_3_is_accepted() -> None:
    env = house()
    for task in env.panel("train"):
        env.reset(options={"task": task})
        while (command := env.expert()) is not None and not command.startswith("move "):
            env.step(command)
        if command is None:
            continue
        name, receptacle = command.removeprefix("move ").split(" to ")
        observation, _, _, _, info = env.step(f"put {name} in/on {receptacle}")
        assert observation == f"You move the {name} to the {receptacle}."
        assert info["valid"]
        return
    raise AssertionError("no task asks to put anything")


def test_the_texts_of_version_0_3() -> None:
    new, old = house(), house(version=0.3)
    assert new.describe().endswith("words of ALFWorld 0.4")
    assert old.describe().endswith("words of ALFWorld 0.3")
    assert "put <object> in/on <place>" in old.instructions
    assert "move <object> to <place>" in new.instructions
    for task in new.panel("train").ids[:6]:
        first_new, first_old = new.reset(options={"task": task}), old.reset(options={"task": task})
        assert first_new[0] == first_old[0]
        assert set(first_old[1]["admissible"]) == set(first_new[1]["admissible"]) - {"help"}
        assert old.step("help")[0] == "Nothing happens."
        while (command := new.expert()) is not None:
            older = old.expert()
            assert older is not None
            assert old.settings.version == "0.3"
            if command.startswith("move "):
                name, receptacle = command.removeprefix("move ").split(" to ")
                assert older == f"put {name} in/on {receptacle}"
                assert older in old.step("look")[-1]["admissible"]
                old_text = old.step(older if "two" in task else command)[0]  # both forms are taken
                assert old_text == f"You put the {name} in/on the {receptacle}."
                assert new.step(command)[0] == f"You move the {name} to the {receptacle}."
                continue
            assert older == command
            old_text, new_text = old.step(older)[0], new.step(command)[0]
            if command.startswith("go to "):
                location, rest = old_text.removeprefix("You arrive at loc ").split(". ", 1)
                assert location.isdigit()
                assert new_text == f"You arrive at {command.removeprefix('go to ')}. {rest}"
            else:
                assert old_text == new_text
        assert old.expert() is None
    with pytest.raises(ConfigError, match=r"version='0\.2' is unknown"):
        house(version="0.2")


def test_the_original_engine_has_version_0_4_only(tree: Path) -> None:
    with pytest.raises(ConfigError, match=r"version 0\.4 only"):
        repro_rl.make("alfworld", data=str(tree), engine="textworld", version="0.3")


def test_progress_is_the_share_of_the_plan_that_is_done() -> None:
    env = house()
    for task in env.panel("train").ids[:12]:
        _, info = env.reset(options={"task": task})
        assert info["progress"] == 0.0
        steps = 0
        progress = [0.0]
        while (command := env.expert()) is not None:
            _, reward, terminated, _, info = env.step(command)
            steps += 1
            progress.append(info["progress"])
        assert terminated
        assert reward == 10.0
        assert progress == pytest.approx([t / steps for t in range(steps + 1)])


def test_random_episodes_are_valid() -> None:
    env = house()
    rng = random.Random(0)
    for task in env.panel("train").ids[:10]:
        _, info = env.reset(options={"task": task})
        anchors = {info["anchor"]}
        for _ in range(30):
            command = rng.choice(info["admissible"])
            _, _, terminated, _, info = env.step(command)
            assert info["valid"], command
            assert 0 <= info["progress"] <= 1
            anchors.add(info["anchor"])
            if terminated:
                break
        assert len(anchors) > 1


def test_broken_and_missing_files(tree: Path, tmp_path: Path) -> None:
    env = repro_rl.make("alfworld", data=str(tree))
    first = env.panel("train").ids[0]
    path = tree / "json_2.1.1" / first / "game.tw-pddl"
    path.write_text("{")
    again = repro_rl.make("alfworld", data=str(tree / "json_2.1.1"))
    with pytest.raises(DataError, match=r"game\.tw-pddl.*JSON"):
        again.panel("train")
    for task in ("train/a/b", "../../x", "train/../..", "", "valid_unseen"):
        with pytest.raises(TaskError, match="no game"):
            env.reset(options={"task": task})
    with pytest.raises(DataError, match="does not exist; name the folder that alfworld-download"):
        repro_rl.make("alfworld", data=str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="is no folder; name"):
        repro_rl.make("alfworld", data=str(path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds none of train, .*; name the folder that alfworld-download"):
        repro_rl.make("alfworld", data=str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="plays files only"):
        house(engine="textworld")
    with pytest.raises(ConfigError, match="did you mean 'textworld'"):
        house(engine="textword")


def test_unsolvable_games_are_omitted(tree: Path) -> None:
    env = repro_rl.make("alfworld", data=str(tree))
    ids = env.panel("train").ids
    path = tree / "json_2.1.1" / ids[0] / "game.tw-pddl"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"solvable": False}))
    assert repro_rl.make("alfworld", data=str(tree / "json_2.1.1")).panel("train").ids == ids[1:]


def test_data_are_found_through_the_environment_variable(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tree))
    assert len(repro_rl.make("alfworld").panel("train")) == 6
