"""What the report reads of a run folder, and what it refuses."""

import gzip
import random

import pytest

from repro_rl.errors import DataError
from repro_rl.report import build_report
from repro_rl.report.load import read_records, read_run
from repro_rl.report.tables import headline
from support.runs import trajectory, write_trajectories


def test_metrics_tolerate_only_a_half_written_end(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"iteration": 1}\n{"iteration": 1, "rollout/success": 0.2}\n{"itera')
    run = read_run(tmp_path)
    assert run.series("rollout/success") == ([1.0], [0.2])
    assert any("line 3, the last, is half-written" in note for note in run.notes)
    assert any("occur twice" in note for note in run.notes)
    assert "training .20 → .20" in headline(run)
    file.write_text('{"iteration": 1}\n{"itera\n{"iteration": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, record line 2"):
        build_report([tmp_path])
    file.write_text('{"iteration": 1}\n{"rollout/success": 1}\n')
    with pytest.raises(DataError, match="line 2, field iteration"):
        read_run(tmp_path)


def test_broken_trajectories_are_named(tmp_path):
    file = tmp_path / "iteration-00001.jsonl.gz"
    write_trajectories(file, [trajectory(0, 0.5, random.Random(0))] * 50)
    assert len(list(read_records(file))) == 50
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match="iteration-00001"):
        list(read_records(file))
    with gzip.open(file, "wt") as out:
        out.write("{}\nnope\n")
    with pytest.raises(DataError, match="line 2"):
        list(read_records(file))
