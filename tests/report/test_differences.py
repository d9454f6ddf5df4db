"""Evaluations on one panel, compared task by task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repro_rl.report import build_report
from repro_rl.report.differences import Outcomes, differences, wins_by_task
from repro_rl.report.load import Run
from support.runs import write_run, write_trajectories

ROW = {
    **{"name": "last", "digest": "d1", "temperature": 0.4, "seed": 0},
    **{"rollouts_per_task": 2, "max_steps": 15},
}


def run_of(label: str) -> Run:
    return Run(Path(label), label, "0", label, {}, {}, [], [], {})


def ended(label: str, before: dict[str, float], after: dict[str, float], **other: Any) -> Outcomes:
    start = {**ROW, "name": "warm-start"}
    return Outcomes(run_of(label), (start, before), ({**ROW, **other}, after))


START = dict.fromkeys("abcd", 0.0)


def test_wins_are_shares_of_the_rollouts_of_a_task() -> None:
    records = [{"task_id": "a", "won": True}, {"task_id": "b", "won": False}, {"task_id": "a", "won": False}]
    assert wins_by_task(records) == {"a": 0.5, "b": 0.0}


def test_gains_of_one_run_and_of_two() -> None:
    one = ended("one", START, {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.0})
    other = ended("two", START, {"a": 1.0, "b": 0.0, "c": 1.0, "d": 0.0})
    (alone,) = differences([one])
    assert (alone.minuend, alone.subtrahend) == ("last", "warm start")
    assert alone.difference.startswith("+.62 [+.")  # (1 + 1 + .5 + 0) / 4 = .625
    assert alone.tasks == "3 better, 0 worse, of 4"
    rows = differences([one, other])
    assert [(row.minuend, row.subtrahend) for row in rows] == [
        ("one, last", "warm start"),
        ("two, last", "warm start"),
        ("one, last", "two, last"),
    ]
    assert rows[2].difference.startswith("+.12 [−.")  # (0 + 1 - .5 + 0) / 4 = .125
    assert rows[2].tasks == "1 better, 1 worse, of 4"


def test_runs_whose_start_was_not_evaluated_are_compared() -> None:
    last = {**ROW, "name": "last"}
    alone = [
        Outcomes(run_of(name), (last, dict.fromkeys("abcd", won)), None)
        for name, won in (("x", 1.0), ("y", 0.5))
    ]
    (row,) = differences(alone)
    assert (row.minuend, row.subtrahend, row.difference) == ("x, last", "y, last", "+.50")
    start = Outcomes(run_of("z"), ({**ROW, "name": "warm-start"}, START), None)
    assert differences([alone[0], start]) == []


@pytest.mark.parametrize(
    "other",
    [{"digest": "d2"}, {"temperature": 1.0}, {"seed": 1}, {"rollouts_per_task": 1}, {"max_steps": 30}],
)
def test_what_was_sampled_otherwise_is_not_compared(other: dict[str, Any]) -> None:
    wins = dict.fromkeys("abcd", 1.0)
    assert differences([ended("one", START, wins, **other)]) == []
    assert len(differences([ended("one", START, wins), ended("two", START, wins, **other)])) == 1
    assert differences([ended("one", START, dict.fromkeys("abce", 1.0))]) == []


def test_a_step_limit_that_an_older_file_does_not_tell_is_no_difference() -> None:
    assert len(differences([ended("one", START, dict.fromkeys("abcd", 1.0), max_steps=None)])) == 1


def test_the_page_shows_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    for name, wins in (("warm-start", 10), ("best", 30)):
        file = run / "eval" / f"{name}.json"
        result = json.loads(file.read_text()) | {"tasks": 40, "episodes": 40, "success": wins / 40}
        file.write_text(json.dumps(result))
        records = [{"task_id": f"t{i}", "rollout": 0, "won": i < wins, "steps": []} for i in range(40)]
        write_trajectories(run / "trajectories" / f"eval-{name}.jsonl.gz", records)
    page = build_report([run]).read_text()
    assert "Compared task by task" in page
    assert "<b>+.50 [" in page
    assert "20 better, 0 worse, of 40" in page
    assert "Compared task by task" not in build_report([write_run(tmp_path / "b")]).read_text()
