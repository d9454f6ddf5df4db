"""What the report reads of a run folder, and what it refuses."""

import gzip
import random

import pytest

from repro_rl.errors import DataError
from repro_rl.report import build_report
from repro_rl.report.load import read_records, read_run
from repro_rl.report.tables import headline
from repro_rl.report.view.library import Library
from repro_rl.study.recorded import find_episode_sets, read_episodes
from support.runs import trajectory, write_trajectories


def test_metrics_tolerate_only_a_half_written_end(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"iteration": 1}\n{"iteration": 1, "rollout/success": 0.2}\n{"itera')
    run = read_run(tmp_path)
    assert run.series("rollout/success") == ([1.0], [0.2])
    assert any("line 3, the last, is half-written" in note for note in run.notes)
    assert any("1 iteration written twice" in note for note in run.notes)
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


@pytest.mark.parametrize(
    "data", [b"", b"plain", gzip.compress(b'{"steps": []}\n')[:-3]], ids=["empty", "plain", "cut"]
)
def test_a_gzip_file_that_is_empty_or_cut_is_not_a_run_without_episodes(tmp_path, data):
    file = tmp_path / "trajectories" / "eval-last.jsonl.gz"
    file.parent.mkdir()
    file.write_bytes(data)
    (tmp_path / "config.yaml").write_text("method: repro\n")
    with pytest.raises(DataError, match=r"eval-last\.jsonl\.gz.*not a whole gzip file"):
        build_report([tmp_path])
    with pytest.raises(DataError, match=r"eval-last\.jsonl\.gz.*not a whole gzip file"):
        [read_episodes(item) for item in find_episode_sets([tmp_path])]
    library = Library([tmp_path])
    library.refresh(60)
    assert "eval-last.jsonl.gz" in library.notes[-1]
    assert "not a whole gzip file" in library.notes[-1]


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 400, "1e400", "-1e999"])
def test_numbers_beyond_any_float_are_named(tmp_path, number):
    file = tmp_path / "trajectories" / "eval-last.jsonl.gz"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(f'{{"steps": [{{"truth": {number}}}]}}\n'.encode()))
    (tmp_path / "config.yaml").write_text("method: repro\n")
    with pytest.raises(DataError, match=r"eval-last\.jsonl\.gz, record line 1: .*the limit is"):
        build_report([tmp_path])
    (tmp_path / "trajectories" / "eval-last.jsonl.gz").unlink()
    (tmp_path / "metrics.jsonl").write_text(f'{{"iteration": 1, "loss": {number}}}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, record line 1: .*the limit is"):
        build_report([tmp_path])


def test_demonstrations_are_no_run(tmp_path):
    (tmp_path / "expert.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match=r"holds demonstrations; give the folder of a warmup or a training"):
        build_report([tmp_path])
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1}\n')
    assert build_report([tmp_path]).exists()
