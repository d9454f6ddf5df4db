"""Runs with callbacks: what they are told, that they change nothing, and how one of them ends a run."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from repro_rl.config import load_config
from repro_rl.errors import CallbackError, MissingDependencyError
from repro_rl.policy.loading.checksums import SUMS
from repro_rl.run.callbacks import Callback
from repro_rl.train import run_training, run_warmup

RUN = [
    *("train.groups=2", "train.group_size=2", "train.minibatches=1", "train.epochs=1", "train.iterations=2"),
    *("train.save_every=9", "train.validate_every=2", "train.record_every=1", "eval.validation_tasks=2"),
]
WARMUP = [
    "warmup={updates: 2, forward_batch: 2, reflect_batch: 2, forward_from: 0, save_every: 9, check_every: 2, "
    "target_success: 1.0}",
    "eval.validation_tasks=2",
]


class Hostile(Callback):
    """Notes its events, changes all that it is given, and draws from every global generator."""

    def __init__(self):
        self.events = []

    def _spoil(self, *given):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        for thing in given:
            thing.clear()

    def on_start(self, run):
        self.events.append(("start", run.stage, run.iteration, run.continues))
        self._spoil(run.settings, *run.rows)

    def on_row(self, row):
        self.events.append(("row", row["iteration"]))
        self._spoil(row)

    def on_validation(self, iteration, metrics):
        self.events.append(("validation", iteration, sorted(metrics)))
        self._spoil(metrics)

    def on_episodes(self, iteration, episodes):
        self.events.append(("episodes", iteration, len(episodes)))
        self._spoil(*(step for e in episodes for step in e["steps"]), *episodes, episodes)

    def on_checkpoint(self, iteration, folder):
        self.events.append(("checkpoint", iteration, (folder / "config.json").exists()))

    def on_end(self, error):
        self.events.append(("end", type(error).__name__))


class Stopping(Callback):
    """Fails at the first row."""

    def on_row(self, row):
        raise ValueError("enough")


def settings(warm, *more):
    return load_config(None, [*warm.settings, *RUN, f"train.init={warm.model}", *more])


def rows(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "seconds" and not k.startswith("time/")} for r in found]


def weights(folder):
    state = json.loads((folder / "state.json").read_text())
    return {name: value for name, value in state[SUMS].items() if name.endswith(".safetensors")}


@pytest.fixture(scope="module")
def plain(warm, tmp_path_factory):
    return run_training(settings(warm), tmp_path_factory.mktemp("plain") / "run").out


def test_a_callback_is_told_of_everything_and_changes_nothing(warm, plain, tmp_path):
    callback = Hostile()
    out = run_training(settings(warm), tmp_path / "run", callbacks=[callback]).out
    assert callback.events == [
        ("start", "train", 0, False),
        *(("episodes", 1, 4), ("row", 1), ("episodes", 2, 4)),
        ("validation", 2, ["validation/success", "validation/tasks"]),
        *(("row", 2), ("checkpoint", 2, True), ("end", "NoneType")),
    ]
    assert rows(out) == rows(plain)
    assert weights(out / "checkpoints" / "00002") == weights(plain / "checkpoints" / "00002") != {}


def test_a_callback_may_stop_a_run_which_then_goes_on(warm, plain, tmp_path):
    told = Hostile()
    stop = settings(warm, "train.callback_errors=stop")
    with pytest.raises(CallbackError, match="Callback Stopping: on_row failed: ValueError: enough"):
        run_training(stop, tmp_path / "run", callbacks=[told, Stopping()])
    assert told.events[-1] == ("end", "CallbackError")
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"00001"}
    said: list[str] = []
    again = Hostile()
    run_training(
        settings(warm), tmp_path / "run", on_text=said.append, callbacks=[again, Stopping()]
    )  # the settings of callbacks may change
    assert again.events[0] == ("start", "train", 1, True)
    assert again.events[-1] == ("end", "NoneType")
    assert sum("Callback Stopping: on_row failed" in line for line in said) == 1
    assert rows(tmp_path / "run") == rows(plain)
    last = Path("checkpoints", "00002")
    assert weights(tmp_path / "run" / last) == weights(plain / last)


def test_a_warmup_tells_the_same(warm, tmp_path):
    callback = Hostile()
    config = load_config(None, [*warm.settings, *WARMUP])
    with pytest.warns(UserWarning, match="^'repro-rl eval' of this run will fail"):
        model = run_warmup(config, warm.demos, tmp_path / "run", callbacks=[callback])
    assert callback.events == [
        ("start", "warmup", 0, False),
        ("row", 1),
        ("validation", 2, ["validation/success"]),
        *(("row", 2), ("checkpoint", 2, True), ("end", "NoneType")),
    ]
    plainly = run_warmup(config, warm.demos, tmp_path / "plain")
    assert weights(model) == weights(plainly) != {}


@pytest.mark.parametrize("stage", ["warmup", "train"])
def test_a_tracker_that_is_missing_is_named_before_anything_is_spent(stage, warm, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    config = settings(warm, "train.trackers=[wandb]")
    folder = tmp_path / "run"
    starts = {
        "train": lambda: run_training(config, folder),
        "warmup": lambda: run_warmup(config, warm.demos, folder),
    }
    with pytest.raises(MissingDependencyError, match=r"'\.\[wandb\]'"):
        starts[stage]()
    assert not any(path.name[0] != "." for path in (tmp_path / "run").glob("*"))
