"""What a tracker is sent, whatever fails and wherever the run is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.config import TrackingSection
from repro_rl.config.tracking import TrackerName
from repro_rl.errors import DataError, MissingDependencyError
from repro_rl.run.callbacks import Callbacks, RunInfo
from repro_rl.run.trackers import check_callbacks
from repro_rl.run.trackers.base import Table
from repro_rl.run.trackers.feed import LONGEST_PAUSE, TrackerCallback, episode_table, numbers, run_name


class Memory:
    """A tracker that keeps rows in a list, which outlives it; some of its calls fail."""

    def __init__(self, kept: list, failing: list[bool] | None = None):
        self.kept, self.failing = kept, failing if failing is not None else []
        self.outcome = ""

    def _perhaps_fail(self):
        if self.failing and self.failing.pop(0):
            raise ConnectionError("the server is away")

    def open(self, run):
        self._perhaps_fail()
        self.run = run
        return max((iteration for iteration, _, _ in self.kept), default=0)

    def add(self, iteration, metrics, tables):
        self._perhaps_fail()
        self.kept.append((iteration, metrics, tables))

    def close(self, outcome):
        self.outcome = outcome


def row(iteration):
    return {"iteration": iteration, "rollout/success": iteration / 100}


def info(folder, rows=(), continues=False):
    return RunInfo("train", Path(folder), {"seed": 1, "env": {"name": "toy"}}, continues, tuple(rows))


def callback(kept, failing=None, **section):
    return TrackerCallback("wandb", TrackingSection(**section), lambda name: Memory(kept, failing))


def steps(kept):
    return [iteration for iteration, _, _ in kept]


def test_a_run_that_goes_well_is_sent_row_by_row(tmp_path):
    kept = []
    feed = callback(kept, project="mine")
    feed.on_start(info(tmp_path))
    tracker = feed.tracker
    for i in (1, 2, 3):
        feed.on_row(row(i))
        assert steps(kept) == list(range(1, i + 1))
    feed.on_end(None)
    assert tracker.outcome == "finished"
    assert (tracker.run.project, tracker.run.settings) == ("mine", {"seed": 1, "env.name": "toy"})
    assert kept[1][1] == {"iteration": 2.0, "rollout/success": 0.02}


@pytest.mark.parametrize(("error", "outcome"), [(KeyboardInterrupt(), "interrupted"), (OSError(), "failed")])
def test_how_a_run_ended_is_told(tmp_path, error, outcome):
    feed = callback([])
    feed.on_start(info(tmp_path))
    tracker = feed.tracker
    feed.on_end(error)
    assert tracker.outcome == outcome


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_row_once_and_in_order_whatever_is_killed_or_fails(tmp_path_factory, data):
    """Commands are killed after some row, and go on at a checkpoint; in a kill the tracker loses its last
    rows, and it is away now and then. After a command that ends well it has each row once."""
    folder, kept, log = tmp_path_factory.mktemp("run"), [], []
    for number in range(data.draw(st.integers(0, 4), "kills")):
        start = data.draw(st.integers(0, len(log)), "checkpoint")
        feed = callback(kept, data.draw(st.lists(st.booleans(), max_size=8), "failing"))
        reports = Callbacks([("wandb", feed)], notify=lambda text: None)
        del log[start:]
        reports.start(info(folder, log, continues=number > 0))
        for i in range(start + 1, start + 1 + data.draw(st.integers(0, 6), "rows")):
            log.append(row(i))
            reports.row(row(i))
        lost = data.draw(st.integers(0, 2), "rows that the tracker had not written yet")
        del kept[len(kept) - lost :]
    feed = callback(kept)
    feed.on_start(info(folder, log, continues=True))
    last = max(len(log), max(steps(kept), default=0))
    for i in range(len(log) + 1, last + 1):
        feed.on_row(row(i))
    feed.on_end(None)
    assert steps(kept) == list(range(1, last + 1))


def test_a_tracker_that_is_away_is_warned_of_once_and_counted(tmp_path):
    kept, said = [], []
    feed = callback(kept, [True] * 3)
    reports = Callbacks([("wandb", feed)], notify=said.append)
    reports.start(info(tmp_path))
    for i in range(1, 9):
        reports.row(row(i))
    reports.end(None)
    assert steps(kept) == list(range(1, 9)), "rows that waited are sent when it is back"
    assert len(said) == 2
    assert said[0].startswith("Callback wandb: on_start failed: ConnectionError: the server is away.")
    assert said[1] == "Callback wandb: on_row failed 2 times in all."


def test_a_tracker_that_never_comes_is_tried_ever_more_seldom(tmp_path):
    said, tries = [], []

    def refuse(name):
        tries.append(name)
        raise ConnectionError("no route")

    feed = TrackerCallback("mlflow", TrackingSection(), refuse)
    reports = Callbacks([("mlflow", feed)], notify=said.append)
    reports.start(info(tmp_path))
    for i in range(1, 501):
        reports.row(row(i))
    assert len(tries) < 20 + 500 / LONGEST_PAUSE
    reports.end(None)
    assert "500 rows not sent: ConnectionError: no route" in said[1]
    assert "repeating the command sends them" in said[1]


def test_a_finished_run_sends_what_a_tracker_lacks(tmp_path):
    kept = [(1, {}, {})]
    feed = callback(kept)
    feed.on_start(info(tmp_path, [row(1), row(2), row(3)], continues=True))
    feed.on_end(None)
    assert steps(kept) == [1, 2, 3]


def test_a_run_keeps_its_key_and_another_one_gets_another(tmp_path):
    keys = []
    for folder, continues in ((tmp_path / "a", False), (tmp_path / "a", True), (tmp_path / "a", False)):
        feed = callback([])
        feed.on_start(info(folder, continues=continues))
        keys.append(feed.run.key)
    assert keys[0] == keys[1] != keys[2]
    other = TrackerCallback("mlflow", TrackingSection(), lambda name: Memory([]))
    other.on_start(info(tmp_path / "a"))
    written = json.loads((tmp_path / "a" / "trackers.json").read_text())
    assert written == {"wandb": keys[2], "mlflow": other.run.key}
    (tmp_path / "a" / "trackers.json").write_text('{"wandb": 7}')
    with pytest.raises(DataError, match=r"trackers\.json"):
        callback([]).on_start(info(tmp_path / "a", continues=True))


def test_the_name_of_a_run():
    assert run_name(Path("runs/repro")) == "repro"
    assert run_name(Path("runs/study/runs/gigpo/seed3")) == "study/gigpo/seed3"
    assert run_name(Path("/somewhere/else/runs/study/runs/gigpo/seed3")) == "study/gigpo/seed3"


def test_only_numbers_are_sent():
    line = {"a": 1, "b": 0.5, "c": None, "d": "x", "e": True, "f": float("nan"), "g": float("inf"), "h": [1]}
    assert numbers(line) == {"a": 1.0, "b": 0.5}


def episode(number, **more):
    step = {"action": "up"}
    return {
        **{"task_id": f"t/{number}", "rollout": number, "won": number == 0, "score": 0.5, "return": 1.0},
        **{"goal": "go", "steps": [step, {"action": ""}], "reflection": None, **more},
    }


def test_a_table_of_sample_episodes(tmp_path):
    table = episode_table([episode(i) for i in range(10)], 4)
    assert [line[0] for line in table.rows] == ["t/0", "t/2", "t/4", "t/6"]
    assert table.rows[0] == ("t/0", 0, "yes", 0.5, 2, 1.0, "", "go", "up; (none)", "")
    judged = episode(1, reflection={"values": [10, 90], "text": "ten|\nninety <b>"})
    assert episode_table([judged], 4).rows[0][6:] == ("10 90", "go", "up; (none)", "ten|\nninety <b>")
    markdown = episode_table([judged], 1).markdown().splitlines()
    assert len(markdown) == 3
    assert markdown[2].endswith("|ten\\| ninety &lt;b>|")


def test_tables_go_with_their_rows(tmp_path):
    kept = []
    feed = callback(kept, episodes=2, episodes_every=3)
    feed.on_start(info(tmp_path))
    for i in range(1, 7):
        feed.on_episodes(i, [episode(0), episode(1), episode(2)])
        feed.on_row(row(i))
    assert [iteration for iteration, _, tables in kept if tables] == [1, 3, 6]
    assert isinstance(kept[0][2]["episodes"], Table)
    assert len(kept[0][2]["episodes"].rows) == 2
    none = callback(kept, episodes=0)
    none.on_episodes(1, [episode(0)])
    assert none.tables == {}


@pytest.mark.parametrize("name", get_args(TrackerName))
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(name, monkeypatch):
    from repro_rl.config import load_config

    train = load_config(None, [f"train.trackers=[{name}]"]).train
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None if package == name else object())
    with pytest.raises(MissingDependencyError, match=rf"{name} is not installed.*'\.\[{name}\]'"):
        check_callbacks(train)
