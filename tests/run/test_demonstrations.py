"""Demonstrations made by a program: once, with hooks for who shows how far it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.config import load_config
from repro_rl.demos import CollectHooks, load_demos
from repro_rl.errors import ConfigError
from repro_rl.run.demonstrations import DemosHooks, MadeDemos, make_demos

FEW = ["demos={expert: 2, winning: 1, failing: 1, wandering: 0}", "eval={tasks: 1, validation_tasks: 1}"]


ROOMS = "env.settings={train_rooms: 8, validation_rooms: 2, test_rooms: 8, solution: [2, 5]}"


def test_they_are_made_once_and_the_caller_hears_of_it(tmp_path: Path) -> None:
    config = load_config(None, [ROOMS, *FEW, "demos.split=test"])
    said: list[str] = []
    begun: list[int] = []
    done: list[int] = []

    def begin(total: int) -> CollectHooks:
        begun.append(total)
        return CollectHooks(on_done=done.append)

    hooks = DemosHooks(on_remark=said.append, on_begin=begin)
    assert make_demos(config, tmp_path / "demos", hooks) == MadeDemos(2, 2)
    assert begun == [4]
    assert sum(done) >= 4
    assert any("the model was shown how these tasks are solved" in line for line in said)
    assert list(map(len, load_demos(tmp_path / "demos"))) == [2, 2]
    assert not (tmp_path / "demos" / "unfinished.jsonl").exists()
    assert make_demos(config, tmp_path / "demos", hooks) is None
    assert begun == [4]
    other = load_config(None, [ROOMS, *FEW, "demos.split=test", "seed=1"])
    with pytest.raises(ConfigError, match=r"(?s)made with other settings:\n *seed: 0 there, 1 now"):
        make_demos(other, tmp_path / "demos")


def test_those_of_an_older_version_are_known_by_the_old_names_of_their_settings(tmp_path: Path) -> None:
    config = load_config(None, [ROOMS, *FEW])
    assert make_demos(config, tmp_path) == MadeDemos(2, 2)
    file = tmp_path / "demos.json"
    now = file.read_text()
    file.write_text(now.replace('"labelled_mistakes"', '"noise"').replace('"mistakes"', '"mistakes"'))
    assert file.read_text() != now
    assert make_demos(config, tmp_path) is None
    with pytest.raises(ConfigError, match=r"demos\.mistakes: \[0\.0, .* there, \[0\.5\] now"):
        make_demos(load_config(None, [ROOMS, *FEW, "demos.mistakes=[0.5]"]), tmp_path)


def test_no_hooks_are_needed(tmp_path: Path) -> None:
    assert make_demos(load_config(None, [ROOMS, *FEW]), tmp_path) == MadeDemos(2, 2)
