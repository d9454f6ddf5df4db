"""Which rank this process is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from repro_rl.config import load_config
from repro_rl.dist.launcher import rank_and_world
from repro_rl.dist.ranks import ALONE
from repro_rl.errors import ConfigError
from repro_rl.run.setup import join_ranks
from support.rank_runs import PATIENCE


def test_a_lone_process_is_what_nothing_was_launched_gives(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert rank_and_world() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # left over by some other tool: no launcher set the rest
    assert rank_and_world() == (0, 1)
    assert join_ranks(load_config(None, [])) is ALONE
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    assert rank_and_world() == (3, 4)
    with pytest.raises(ConfigError, match="would put 4 processes on one GPU"):
        join_ranks(load_config(None, ["policy.device=cuda:0"]))


def test_commands_for_one_process_are_refused_in_several(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "repro_rl", "demo", "--out", str(tmp_path / "demo")],
        env=os.environ | {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "process 1:" in done.stderr
    assert "'repro-rl demo' runs in one process, but 2 were started" in done.stderr
    assert not (tmp_path / "demo").exists()
