"""Recorded episodes: which files hold them, what cannot be read, what is resampled."""

import gzip

import pytest
import yaml

from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.errors import DataError
from repro_rl.files import write_json
from repro_rl.report.load import read_runs
from repro_rl.study.recorded import (
    clusters,
    find_episode_sets,
    read_episodes,
)
from support.progress_records import (
    LOST,
    WON,
    episodes,
    make_run,
)


def test_tasks_are_resampled_where_they_have_several_episodes():
    assert clusters(episodes(WON, LOST)) == ([0, 1], "episodes")
    assert clusters(episodes(WON, LOST, WON)) == (["a", "b", "a"], "tasks")


def test_the_tasks_of_a_set_are_those_of_its_files(tmp_path):
    """The panel of the evaluation or of the manifest; the environment's settings where no file has one."""
    run = make_run(tmp_path / "run")
    assert {item.panel for item in find_episode_sets([run])} == {""}
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["env"] = {"name": "sokoban", "settings": {"rows": 6, "boxes": 2}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    environment = 'sokoban {"boxes": 2, "rows": 6}'
    assert {item.panel for item in find_episode_sets([run])} == {environment}
    write_json(run / "eval" / "last.json", {"success": 0.5, "digest": "abc", "panel": "sokoban/test[8]@abc"})
    write_json(run / "eval" / "warm-start.json", {"success": 0.5, "digest": "def"})
    write_json(run / "manifest.json", {"panels": {"train": {"label": "sokoban/train[9]@123"}}})
    panels = {item.name: item.panel for item in find_episode_sets([run])}
    assert panels == {
        "eval warm-start": "def",
        "eval last": "sokoban/test[8]@abc",
        "training": "sokoban/train[9]@123",
    }
    (run / "eval" / "last.json").write_text("{")  # the episodes are analysed without it
    (run / "manifest.json").write_text("[]")
    panels = {item.name: item.panel for item in find_episode_sets([run])}
    assert panels == {"eval warm-start": "def", "eval last": environment, "training": environment}


def test_models_that_were_not_trained_here_go_by_their_own_name(tmp_path):
    """Two of them are no two seeds of the method that their settings name."""
    runs = [make_run(tmp_path / name) for name in "ab"]
    for run in runs:
        write_json(
            run / "manifest.json", {"kind": "evaluation", "agent": f"api:{run.name}", "method": "repro"}
        )
    assert {item.settings.method for item in find_episode_sets(runs)} == {"api:a", "api:b"}
    assert [run.method for run in read_runs(runs)] == ["api:a", "api:b"]


def test_what_cannot_be_read_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(DataError, match="no such run folder"):
        find_episode_sets([tmp_path / "nothing"])
    with pytest.raises(DataError, match="evaluation 'best'"):
        find_episode_sets([run], ["best"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no recorded episodes"):
        find_episode_sets([tmp_path / "empty"])
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"task_id": "q", "steps": [1, 2]}\n'))
    with pytest.raises(DataError, match=r"broken\.jsonl\.gz, record line 1, field steps\.0"):
        read_episodes(find_episode_sets([broken])[0])
    broken.write_bytes(gzip.compress(b"[1]\n"))
    with pytest.raises(DataError):
        read_episodes(find_episode_sets([broken])[0])
