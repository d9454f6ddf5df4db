"""Generated households as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import repro_rl
from repro_rl.envs.alfworld.export import write_tree
from repro_rl.envs.alfworld.household_tables import tables
from repro_rl.envs.alfworld.households import household
from repro_rl.envs.alfworld.sources import GameFolder
from repro_rl.errors import ConfigError, DataError


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    assert write_tree(folder, 12, seed=4) == {"train": 12, "valid_seen": 10, "valid_unseen": 10}
    return folder


def test_the_files_hold_the_generated_games(tree: Path) -> None:
    stored = repro_rl.make("alfworld", data=str(tree))
    generated = repro_rl.make("alfworld", games=12, seed=4)
    assert stored.describe().startswith("generated households in files: train 12, valid_seen 10")
    for split in ("train", "validation", "test"):
        ours, theirs = generated.panel(split), stored.panel(split)
        assert ours.env == theirs.env == "alfworld-generated"
        pairs = [dict(zip(panel.ids, panel.contents, strict=True)) for panel in (ours, theirs)]
        assert pairs[0] == pairs[1]
    task = stored.panel("test").ids[3]
    assert stored.reset(options={"task": task}) == generated.reset(options={"task": task})


def test_a_game_has_the_fields_of_the_original_package(tree: Path) -> None:
    for number in range(12):
        home = household("train", number, 4)
        folder = tree / "json_2.1.1" / home.id
        assert sorted(path.name for path in folder.iterdir()) == ["game.tw-pddl", "traj_data.json"]
        game = json.loads((folder / "game.tw-pddl").read_text())
        assert game == home.data
        assert game["solvable"] is True
        facts = json.loads((folder / "traj_data.json").read_text())
        assert facts["task_type"] == tuple(tables().tasks)[number % 6]
        object_type, target = home.id.split("/")[1].split("-")[1:4:2]
        params = facts["pddl_params"]
        assert params["object_target"] == object_type
        assert {params["parent_target"], params["toggle_target"]} == {"", target}
        assert params["toggle_target"] == (target if "look" in facts["task_type"] else "")


def test_writing_again_resumes_and_changes_nothing(tree: Path, tmp_path: Path) -> None:
    def stop(count: int) -> None:
        if count == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree(tmp_path, 12, seed=4, on_done=stop)
    assert len(list(tmp_path.rglob("game.tw-pddl"))) == 7
    half = next(tmp_path.rglob("game.tw-pddl")).parent
    (half / "game.tw-pddl").unlink()
    (half / ".game.tw-pddl.1.tmp").write_text("{")
    counts: list[int] = []
    assert sum(write_tree(tmp_path, 12, seed=4, on_done=counts.append).values()) == 32 - 6
    assert counts == list(range(1, 33))
    assert files(tmp_path) == files(tree)
    assert sum(write_tree(tmp_path, 15, seed=4).values()) == 3
    assert files(tree).items() - files(tmp_path).items() == {
        ("json_2.1.1/households.json", files(tree)["json_2.1.1/households.json"])
    }


def test_other_games_are_never_mixed_in(tree: Path, tmp_path: Path) -> None:
    before = files(tree)
    for games, seed in ((12, 5), (11, 4)):
        with pytest.raises(DataError, match="choose another folder"):
            write_tree(tree, games, seed)
    assert files(tree) == before
    (tmp_path / "json_2.1.1" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="were not generated here"):
        write_tree(tmp_path, 12)
    with pytest.raises(ConfigError, match="10 or more"):
        write_tree(tmp_path, 9)


def test_a_survey_counts_games_and_omitted_games(tmp_path: Path) -> None:
    write_tree(tmp_path, 12)
    inner = tmp_path / "json_2.1.1"
    paths = sorted((inner / "train").glob("pick_heat*/*/game.tw-pddl"))
    paths[0].write_text(json.dumps(json.loads(paths[0].read_text()) | {"solvable": False}))
    paths[1].parent.parent.rename(inner / "train" / "pick_heat_then_place_in_recep-AppleSliced-None-Shelf-1")
    with pytest.warns(UserWarning, match="train has 11 of 12 games"):  # one has left its place
        survey = GameFolder(tmp_path).survey("train")
    assert (survey.unsolvable, survey.left_out) == (1, 1)
    assert survey.kinds == {kind: 2 for kind in tables().tasks if "heat" not in kind}
    assert len(survey.panel) == 10
