"""docs/trackers.md: its example runs as printed, and it lists every setting and event there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from repro_rl.config import TrackingSection, load_config
from repro_rl.config.tracking import TrackerName
from repro_rl.run.callbacks import Callback
from repro_rl.run.trackers import check_callbacks
from repro_rl.train import run_training

TEXT = (Path(__file__).parents[1] / "docs" / "trackers.md").read_text()


def test_the_example_runs_as_printed(warm, tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (setting,) = re.findall(r"train\.callbacks=\[\S+?\]", TEXT)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    (tmp_path / "my_callbacks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    small = ["train.groups=2", "train.group_size=2", "train.minibatches=1", "train.iterations=1"]
    config = load_config(None, [*warm.settings, *small, f"train.init={warm.model}", setting])
    run = run_training(config, tmp_path / "run")
    success, iteration = run.best
    assert (tmp_path / "best.txt").read_text() == f"{success} after iteration {iteration}"


def test_every_setting_tracker_and_event_is_listed():
    listed = set(re.findall(r"`((?:train\.tracking\.)?\w+)(?:\([\w, ]*\))?`", TEXT))
    assert {f"train.tracking.{name}" for name in TrackingSection.model_fields} - {
        "train.tracking.episodes_every"
    } <= listed
    assert "`episodes_every`" in TEXT
    assert set(get_args(TrackerName)) <= listed
    assert {name for name in vars(Callback) if name.startswith("on_")} <= listed


def test_the_settings_on_the_page_are_valid():
    for text in re.findall(r"train\.\w+(?:\.\w+)?=\S+", TEXT):
        if "..." not in text:
            load_config(None, [text.strip("`);,")])
    assert check_callbacks(load_config(None).train) == []


@pytest.mark.parametrize("wrong", ["train.trackers=[tensorbord]", "train.tracking.episodes=-1"])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=wrong.partition("=")[0].replace(".", r"\.")):
        load_config(None, [wrong])
