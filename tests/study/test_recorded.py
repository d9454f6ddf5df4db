"""Recorded episodes: which files hold them, what cannot be read, what is resampled."""

import gzip

import pytest

from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.errors import DataError
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
