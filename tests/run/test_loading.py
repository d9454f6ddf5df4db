"""A run folder as one object."""

from __future__ import annotations

import pytest

from repro_rl import load_run
from repro_rl.config import dump_config, load_config
from repro_rl.errors import CheckpointError, ConfigError, DataError
from support.checkpoints import empty_checkpoint


@pytest.fixture
def folder(tmp_path):
    """A run that has only begun."""
    (tmp_path / "config.yaml").write_text(dump_config(load_config(None, ["train.lr=0.5"])))
    return tmp_path


def test_a_finished_warmup_as_it_was(warm):
    run = load_run(warm.run)
    assert run.folder == warm.run
    assert run.config == load_config(None, warm.settings)
    assert run.manifest["demos"] == str(warm.demos)
    assert run.metrics() == warm.rows
    assert run.model() == warm.model
    assert run.evaluations() == {}
    assert run.trajectory_files() == []


def test_a_run_that_has_only_begun_is_empty(folder):
    run = load_run(str(folder))
    assert run.config.train.lr == 0.5
    assert (run.manifest, run.metrics(), run.evaluations(), run.trajectory_files()) == ({}, [], {}, [])
    with pytest.raises(CheckpointError, match="holds no model"):
        run.model()
    with pytest.raises(DataError, match="iteration-00001"):
        list(run.trajectories("iteration-00001"))


def test_models_evaluations_and_episodes_by_name(folder):
    first, second = (
        empty_checkpoint(folder, 2, best_iteration=2),
        empty_checkpoint(folder, 4, best_iteration=2),
    )
    (folder / "eval").mkdir()
    (folder / "eval" / "best-test.json").write_text('{"success": 0.5, "digest": "d"}')
    (folder / "trajectories").mkdir()
    (folder / "trajectories" / "eval-a.jsonl.gz").touch()
    run = load_run(folder)
    assert (run.model(), run.model("best"), run.model("2")) == (second, first, first)
    assert run.evaluations() == {"best-test": {"success": 0.5, "digest": "d"}}
    assert [path.name for path in run.trajectory_files()] == ["eval-a.jsonl.gz"]


def test_what_cannot_be_read_is_named(folder, tmp_path):
    (folder / "metrics.jsonl").write_text('{"iteration": 1}\n{"iter\n{"iteration": 3}\n{"it')
    with pytest.raises(DataError, match=r"metrics\.jsonl.*line 2"):
        load_run(folder).metrics()
    (folder / "eval").mkdir()
    (folder / "eval" / "x.json").write_text("[1]")
    with pytest.raises(DataError, match=r"x\.json.*no evaluation"):
        load_run(folder).evaluations()
    (folder / "config.yaml").write_text("trian: {}")
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        load_run(folder)
    with pytest.raises(CheckpointError, match=r"not a run folder: config\.yaml is missing"):
        load_run(tmp_path / "nothing")
