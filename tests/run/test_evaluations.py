"""The results of a run folder: which compare, and in which order they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro_rl.errors import DataError
from repro_rl.report.load import read_run
from repro_rl.run.evaluations import (
    differing_condition,
    evaluation_file,
    evaluation_files,
    evaluation_order,
    read_evaluation,
)
from repro_rl.study.folder import panels
from repro_rl.study.outcomes import Result, check_panel

RESULT = {
    **{"success": 0.5, "digest": "d", "tasks": 4, "rollouts_per_task": 1},
    **{"temperature": 0.4, "seed": 0, "max_steps": 15},
}


def write(run: Path, name: str, **changes: object) -> Path:
    path = evaluation_file(run, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**RESULT, **changes}))
    return path


def test_every_reader_checks_a_result(tmp_path: Path) -> None:
    """The report and a study read the same fields as the tables do, so they refuse the same files."""
    run = tmp_path / "runs" / "repro" / "0"
    path = write(run, "last", success="half")
    for read in (lambda: read_evaluation(path), lambda: read_run(run), lambda: panels(tmp_path)):
        with pytest.raises(DataError, match=r"last\.json: no evaluation \(.*success"):
            read()


def test_evaluations_stand_in_the_order_of_a_run(tmp_path: Path) -> None:
    names = ["last", "40", "best", "warm-start", "final", "8"]
    assert sorted(names, key=evaluation_order) == ["warm-start", "40", "8", "best", "last", "final"]
    for name in names:
        write(tmp_path, name, iteration=int(name) if name.isdigit() else None)
    assert [path.stem for path in evaluation_files(tmp_path)] == sorted(names)
    shown = [row["name"] for row in read_run(tmp_path).evaluations]
    assert shown == ["warm-start", "8", "40", "best", "last", "final"]


@pytest.mark.parametrize("key", ["digest", "tasks", "rollouts_per_task", "temperature", "seed", "max_steps"])
def test_what_must_be_equal(key: str) -> None:
    other = {**RESULT, key: "d2" if key == "digest" else 99}
    assert differing_condition(RESULT, RESULT) is None
    assert differing_condition(RESULT, other) == key
    with pytest.raises(DataError, match=f"{key}.*cannot stand in one table"):
        check_panel([Result("a", 0, RESULT), Result("b", 0, other)])
    missing = {name: value for name, value in RESULT.items() if name != key}
    assert differing_condition(RESULT, missing) == (None if key == "max_steps" else key)
