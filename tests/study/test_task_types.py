"""Success per task type: the ids' types, the counts, and where they are shown."""

import io
import json

from rich.console import Console

from repro_rl.cli.show import eval_tables
from repro_rl.envs.base import make
from repro_rl.report import build_report
from repro_rl.study.stats import wilson
from repro_rl.study.task_types import SHORT_NAMES, short_name, success_by_type


def test_alfworld_ids_name_their_type():
    env = make("alfworld", games=24)
    kind = env.task_type
    assert kind("valid_unseen/pick_and_place_simple-Book-None-Desk-312/trial_T2") == "pick_and_place_simple"
    assert kind("pick_and_place_simple-Book") is None
    assert kind("a/b/c") is None
    types = {kind(task) for task in env.panel("train")}
    assert types == set(SHORT_NAMES)
    assert make("sokoban").task_type("anything/test/1") is None


def test_counts_rates_and_intervals_by_hand():
    outcomes = [("a/1", True), ("a/2", False), ("b/1", True), ("?", True)]
    found = success_by_type(outcomes, {"a/1": "zig", "a/2": "zig", "b/1": "look_at_obj_in_light"}.get)
    assert list(found) == ["look_at_obj_in_light", "zig"]  # the papers' types first
    low, high = wilson(1, 2)
    assert found["zig"] == {"episodes": 2, "won": 1, "success": 0.5, "low": low, "high": high}
    assert success_by_type([("x", True)], lambda task: None) == {}


def test_short_names_are_the_papers():
    assert [short_name(kind) for kind in SHORT_NAMES] == ["Pick", "Look", "Clean", "Heat", "Cool", "Pick2"]
    assert short_name("other") == "other"


def result(name, types):
    return {
        "name": name, "digest": "0123", "panel": "alfworld/test/3@0123", "temperature": 0.4,
        "success": 0.5, "low": 0.2, "high": 0.8, "length": 9.0,
        "progress": {"retrospective": {}}, "by_type": types, "episodes": 3,
    }  # fmt: skip


TYPES = {
    "pick_two_obj_and_place": {"episodes": 2, "won": 1, "success": 0.5, "low": 0.095, "high": 0.905},
    "<b>odd": {"episodes": 1, "won": 1, "success": 1.0, "low": 0.21, "high": 1.0},
}


def printed(results):
    console = Console(file=io.StringIO(), width=120)
    for table in eval_tables(results):
        console.print(table)
    return console.file.getvalue()


def test_the_table_shows_types_only_where_there_are_any():
    text = printed([result("last", TYPES), result("best", None)])
    (line,) = [line for line in text.splitlines() if "Pick2" in line]
    assert "0.500" in line
    assert "0.10" in line
    assert "–" in line  # the evaluation without types
    assert "by task type" not in printed([result("last", None)])


def test_the_table_says_of_how_many_episodes_a_rank_correlation_is():
    """A judge that says 0 at every step has none: .54 can be of one episode."""
    few = result("last", None)
    few["progress"] = {"retrospective": {"spearman_failure": 0.543, "spearman_failure_episodes": 1}}
    text = printed([few])
    assert "0.54 (1)" in text
    assert "in how many both change" in " ".join(text.split())


def test_the_report_shows_types_and_escapes_them(tmp_path):
    folder = tmp_path / "run" / "eval"
    folder.mkdir(parents=True)
    (folder / "last.json").write_text(json.dumps(result("last", TYPES)))
    (folder / "old.json").write_text(json.dumps(result("old", None)))
    page = build_report([tmp_path / "run"]).read_text()
    assert "By task type" in page
    assert "Pick2 (2)" in page
    assert ".50 [.10, .91]" in page or ".50 [.10, .90]" in page
    assert "&lt;b&gt;odd (1)" in page
    (folder / "last.json").unlink()
    assert "By task type" not in build_report([tmp_path / "run"]).read_text()
