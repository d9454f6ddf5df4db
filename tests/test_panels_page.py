"""docs/panels.md: its digests are computed anew, where that needs no data."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

import repro_rl
from repro_rl.study.stats import wilson
from support.command import run_command
from support.webshop_data import record
from support.webshop_shop import hand_made

TEXT = (Path(__file__).parents[1] / "docs" / "panels.md").read_text()
ROWS = {
    row[1].strip(): row for row in re.finditer(r"^\| (.+?) \| (\d+) \| `?([^|`]+)`? \| (.+) \|$", TEXT, re.M)
}
HERE = {
    "`sokoban` `test`": ("sokoban", {}, "test"),
    "`sokoban` `validation`": ("sokoban", {}, "validation"),
    "`alfworld-generated` `test`, our households, `games=2000, seed=0`": ("alfworld", {}, "test"),
    "`alfworld-generated` `validation`": ("alfworld", {}, "validation"),
    "field's split, generated catalogue": ("webshop", {"splits": "position"}, "test"),
    "leak-free, generated catalogue (the default)": ("webshop", {}, "test"),
}
FILES = {
    "field's split, original small set (1,000 products), synthetic goals": "position",
    "leak-free, the same set": "product",
}


def test_every_row_is_computed_or_says_that_it_was_not():
    assert len(ROWS) == 11
    assert {name for name, row in ROWS.items() if row[4] == "here"} == set(HERE)
    assert [n for n, row in ROWS.items() if n not in HERE and n not in FILES] == [
        n for n, row in ROWS.items() if row[3].strip() == "not computed here"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_digests_that_need_no_data(name, monkeypatch):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    env, settings, split = HERE[name]
    panel = repro_rl.make(env, **settings).panel(split)
    assert (str(len(panel)), panel.digest) == (ROWS[name][2], ROWS[name][3])


@pytest.mark.parametrize("name", FILES)
def test_digests_of_the_original_products(name, shop_folder):
    panel = repro_rl.make("webshop", data=str(shop_folder), splits=FILES[name]).panel("test")
    assert (str(len(panel)), panel.digest) == (ROWS[name][2], ROWS[name][3])


@pytest.fixture
def shop_folder(shared_webshop, tmp_path):
    """The original's files under their names."""
    for name in ("items_shuffle_1000.json", "items_ins_v2_1000.json"):
        (tmp_path / name).write_bytes(gzip.decompress((shared_webshop / f"{name}.gz").read_bytes()))
    return tmp_path


def test_the_stated_intervals():
    for tasks, points in ((500, 4.4), (134, 8.3)):
        low, high = wilson(tasks // 2, tasks)
        assert round(50 * (high - low), 1) == points


def test_show_and_export(tmp_path, capsys, monkeypatch):
    rooms = ["train_rooms=2", "validation_rooms=3", "test_rooms=4", "solution=[2, 5]", "max_steps=6"]
    status, out = run_command(capsys, monkeypatch, "panel", "show", "sokoban", *rooms)
    panel = repro_rl.make("sokoban", solution=[2, 5], max_steps=6, test_rooms=4).panel("test")
    assert status == 0
    assert f"test: sha256 {panel.digest}" in out
    assert "validation: sha256" in out
    file = tmp_path / "panel.jsonl"
    command = ("panel", "export", "sokoban", "test", *rooms, "-o", str(file), "-n", "3")
    status, out = run_command(capsys, monkeypatch, *command)
    assert status == 0
    assert f"sha256 {panel.head(3).digest}" in out
    status, out = run_command(capsys, monkeypatch, "panel", "show", "alfworld", "test", "games=10")
    assert status == 0
    assert "pick_and_place_simple" in out

    # a file for others names no path of this machine
    folder = tmp_path / "catalogue"
    hand_made(folder, [record("M000000001")])
    file_of_shop = tmp_path / "shop.json"
    command = ("panel", "export", "webshop", "all", f"data={folder}", "style=words", "-o", str(file_of_shop))
    status, out = run_command(capsys, monkeypatch, *command)
    assert status == 0, out
    assert json.loads(file_of_shop.read_text())["settings"] == {"data": "catalogue", "style": "words"}
    assert str(tmp_path) not in file_of_shop.read_text()

    # the digest by the page's recipe, without the package
    head, *tasks = map(json.loads, file.read_text().splitlines())
    digest = hashlib.sha256()
    for part in (head["panel_env"], *(t[key] for t in tasks for key in ("id", "content"))):
        digest.update(len(part.encode()).to_bytes(8, "little") + part.encode())
    assert digest.hexdigest() == head["digest"] == panel.head(3).digest
    listed = set(re.findall(r"`(\w+)`", TEXT.partition("\n## The file\n")[2]))
    assert {*head, *tasks[0]} <= listed


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["export", "sokoban", "-o", "p.json"], "A file holds one panel"),
        (["export", "sokoban", "test", "-o", "p.txt"], "ends in .json or .jsonl"),
        (["show", "sokoban", "tset", "train_rooms=1"], "did you mean 'test'"),
        (["show", "sokobna"], "did you mean 'sokoban'"),
        (["show", "rows=6"], "Name an environment first"),
        (["export", "sokoban", "test", "test_rooms=2", "-n", "5", "-o", "p.json"], "has 2 tasks"),
    ],
)
def test_mistakes_are_named(words, needle, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out = run_command(capsys, monkeypatch, "panel", *words)
    assert status == 2
    assert needle in " ".join(out.split())
    assert list(tmp_path.iterdir()) == []
