"""Training games set aside for evaluation."""

from __future__ import annotations

import json
import shutil

import pytest

import repro_rl
from repro_rl.envs.alfworld.export import write_tree
from repro_rl.envs.alfworld.holdout import hold_out, split_by_content
from repro_rl.envs.alfworld.sources import GameFolder
from repro_rl.errors import ConfigError, DataError, TaskError
from support.command import run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 generated games as files."""
    path = tmp_path_factory.mktemp("games")
    write_tree(path, 40, 3)
    return path


def names(panel):
    return {task.partition("/")[2] for task in panel}


def test_the_parts_are_disjoint_complete_and_by_type(folder, tmp_path):
    counts = hold_out(folder, tmp_path / "out", test=0.25, validation=0.2)
    assert sum(counts.values()) == 40
    env = repro_rl.make("alfworld", data=str(tmp_path / "out"))
    parts = {split: names(env.panel(split)) for split in ("train", "valid_seen", "valid_unseen")}
    assert {split: len(part) for split, part in parts.items()} == counts
    assert len(set.union(*parts.values())) == 40
    original = repro_rl.make("alfworld", data=str(folder)).panel("train")
    assert set.union(*parts.values()) == names(original)
    kinds = {}
    for split, part in parts.items():
        for name in part:
            kinds.setdefault(name.split("-")[0], []).append(split)
    for kind, splits in kinds.items():
        assert splits.count("valid_unseen") == round(len(splits) / 4), kind
        assert splits.count("valid_seen") == round(len(splits) / 5), kind
    task = env.panel("test").ids[0]
    env.reset(options={"task": task})
    assert env.expert()


def test_by_hand_the_smallest_keys_of_a_type_come_first(folder):
    games = GameFolder(folder)
    keys = dict(zip(games.panel("train").ids, games.panel("train").contents, strict=True))
    splits = split_by_content(games, 0.25, 0.25)
    for kind in {task.split("/")[1].split("-")[0] for task in keys}:
        of = {split: [keys[t] for t in tasks if f"/{kind}-" in t] for split, tasks in splits.items()}
        assert max(of["valid_unseen"], default="") < min(of["train"])
        assert max(of["valid_seen"], default="") < min(of["train"])
        if of["valid_unseen"] and of["valid_seen"]:
            assert max(of["valid_unseen"]) < min(of["valid_seen"])


def test_other_folder_names_change_nothing(folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    train = moved / "json_2.1.1" / "train"
    for number, path in enumerate(sorted(train.glob("*/*"))):
        path.rename(path.parent / f"trial_{100 - number}")

    def contents(root):
        games = GameFolder(root)
        keys = dict(zip(games.panel("train").ids, games.panel("train").contents, strict=True))
        return [{keys[t] for t in tasks} for tasks in split_by_content(games, 0.3, 0.1).values()]

    assert contents(moved) == contents(folder)


def test_generated_games_stay_generated(folder, tmp_path):
    out = tmp_path / "out"
    hold_out(folder, out, validation=0.0)
    games = GameFolder(out)
    assert games.describe().startswith("generated households in files: ")
    assert games.panel("train").env == GameFolder(folder).panel("train").env == "alfworld-generated"
    manifest = json.loads((out / "json_2.1.1" / "households.json").read_text())
    assert (manifest["seed"], manifest["held_out"]) == (3, {"test": 0.25, "validation": 0.0})
    with pytest.raises(DataError, match="'hold-out' split these games; choose another folder"):
        write_tree(out, 40, 3)  # would put the held-out games back into training


def test_what_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="leave no training games"):
        hold_out(folder, tmp_path / "out", test=0.7, validation=0.3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(ConfigError, match="is not empty"):
        hold_out(folder, tmp_path / "full")
    hold_out(folder, tmp_path / "out", test=0.0, validation=0.2)
    with pytest.raises(TaskError, match="no games for the split valid_unseen"):
        repro_rl.make("alfworld", data=str(tmp_path / "out")).panel("test")


def test_some_types_alone_have_the_same_parts(folder, tmp_path):
    games = GameFolder(folder)
    whole, kinds = split_by_content(games, 0.25, 0.25), ("pick_and_place_simple", "pick_two_obj_and_place")
    some = split_by_content(games, 0.25, 0.25, kinds)
    assert some == {
        split: part
        for split, tasks in whole.items()
        if (part := [task for task in tasks if task.split("/")[1].split("-")[0] in kinds])
    }
    with pytest.raises(ConfigError, match=r"type 'pick'; there are .*pick_and_place_simple, "):
        hold_out(folder, tmp_path / "out", types=["pick"])
    assert not (tmp_path / "out").exists()


def test_the_command(folder, tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "out")
    code, text = run_command(capsys, monkeypatch, "data", "alfworld", "hold-out", str(folder), "-o", out)
    assert code == 0
    held = len(repro_rl.make("alfworld", data=out).panel("valid_unseen"))
    seen = len(repro_rl.make("alfworld", data=out).panel("valid_seen"))
    assert f"valid_unseen {held}, valid_seen {seen}, train {40 - held - seen}" in text
    assert "valid_unseen" in run_command(capsys, monkeypatch, "data", "alfworld", "info", out)[1]
    code, text = run_command(capsys, monkeypatch, "data", "alfworld", "hold-out", str(folder), "-o", out)
    assert code == 2
    some = ("--types", "pick_and_place_simple", "-o", f"{out}-pick")
    assert run_command(capsys, monkeypatch, "data", "alfworld", "hold-out", str(folder), *some)[0] == 0
    panel = repro_rl.make("alfworld", data=f"{out}-pick").panel("train")
    assert {task.split("/")[1].split("-")[0] for task in panel.ids} == {"pick_and_place_simple"}


def test_official_games(official, tmp_path):
    """A quarter of each of the six types of 200 games."""
    folder = official[0].parents[3]
    assert hold_out(folder, tmp_path / "a", validation=0.0) == {"valid_unseen": 50, "train": 150}
    assert hold_out(folder, tmp_path / "b") == {"valid_unseen": 50, "valid_seen": 20, "train": 130}
