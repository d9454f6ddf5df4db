"""Generated ALFWorld households as files: layout, going on, what the original package reads, the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import repro_rl
from command import run_command
from repro_rl.envs.alfworld.export import trajectory, write_tree
from repro_rl.envs.alfworld.households import TASK_TYPES, household
from repro_rl.envs.alfworld.library import Tree
from repro_rl.errors import ConfigError, DataError


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    assert write_tree(folder, 12, seed=4) == {"train": 12, "valid_seen": 10, "valid_unseen": 10}
    return folder


def test_the_files_hold_the_generated_games(tree: Path) -> None:
    found = repro_rl.make("alfworld", data=str(tree))
    made = repro_rl.make("alfworld", games=12, seed=4)
    assert found.describe().startswith("generated households in files: train 12, valid_seen 10")
    for split in ("train", "validation", "test"):
        ours, theirs = made.panel(split), found.panel(split)
        assert ours.env == theirs.env == "alfworld-generated"
        pairs = [dict(zip(panel.ids, panel.contents, strict=True)) for panel in (ours, theirs)]
        assert pairs[0] == pairs[1]
    task = found.panel("test").ids[3]
    assert found.reset(options={"task": task}) == made.reset(options={"task": task})


def test_a_game_has_what_the_original_package_asks_for(tree: Path) -> None:
    for number in range(12):
        home = household("train", number, 4)
        folder = tree / "json_2.1.1" / home.id
        assert sorted(path.name for path in folder.iterdir()) == ["game.tw-pddl", "traj_data.json"]
        game = json.loads((folder / "game.tw-pddl").read_text())
        assert game == home.data
        assert game["solvable"] is True
        known = json.loads((folder / "traj_data.json").read_text())
        assert known == trajectory(home)
        assert known["task_type"] == TASK_TYPES[number % 6]
        wanted, target = home.id.split("/")[1].split("-")[1:4:2]
        asked = known["pddl_params"]
        assert asked["object_target"] == wanted
        assert {asked["parent_target"], asked["toggle_target"]} == {"", target}
        assert asked["toggle_target"] == (target if "look" in known["task_type"] else "")


def test_writing_again_goes_on_and_changes_nothing(tree: Path, tmp_path: Path) -> None:
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


def test_a_survey_counts_what_is_and_what_is_not_played(tmp_path: Path) -> None:
    write_tree(tmp_path, 12)
    inner = tmp_path / "json_2.1.1"
    paths = sorted((inner / "train").glob("pick_heat*/*/game.tw-pddl"))
    paths[0].write_text(json.dumps(json.loads(paths[0].read_text()) | {"solvable": False}))
    paths[1].parent.parent.rename(inner / "train" / "pick_heat_then_place_in_recep-AppleSliced-None-Shelf-1")
    found = Tree(tmp_path).survey("train")
    assert (found.unsolvable, found.left_out) == (1, 1)
    assert found.kinds == {kind: 2 for kind in TASK_TYPES if "heat" not in kind}
    assert len(found.panel) == 10


def test_the_command_writes_and_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    out = str(tmp_path / "games")
    generate = ("data", "alfworld", "generate", "-o", out, "--games", "12", "--seed", "4")
    code, text = run_command(capsys, monkeypatch, *generate)
    assert code == 0
    assert "32 of 32 games written (0 were there)" in text
    assert f"data={out}" in text
    assert "0 of 32 games written (32 were there)" in run_command(capsys, monkeypatch, *generate)[1]
    code, text = run_command(capsys, monkeypatch, *generate[:-1], "5")
    assert code == 2
    assert "choose another folder" in " ".join(text.split())
    code, text = run_command(capsys, monkeypatch, "data", "alfworld", "info", out)
    assert code == 0
    panel = repro_rl.make("alfworld", data=out).panel("valid_unseen")
    assert f"valid_unseen: 10 games, panel digest {panel.digest}" in text
    assert "look_at_obj_in_light" in text
    assert run_command(capsys, monkeypatch, "data", "alfworld", "info")[0] == 2
    monkeypatch.setenv("ALFWORLD_DATA", out)
    assert run_command(capsys, monkeypatch, "data", "alfworld", "info") == (0, text)
