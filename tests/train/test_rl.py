"""What an RL run refuses before it starts, and in which order it starts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from repro_rl.config import load_config
from repro_rl.envs import SokobanEnv, TaskPanel, register_env
from repro_rl.envs.base import ENVS
from repro_rl.errors import PreflightError
from repro_rl.run.setup import Setup, set_up
from repro_rl.train import RLRun, rl, run_training

RUN = ["train.groups=2", "train.group_size=2", "train.iterations=1"]


@pytest.fixture
def without_training_tasks():
    """Sokoban whose training panel is empty, under a name of its own."""

    class NoTrainingTasks(SokobanEnv):
        def panel(self, split):
            panel = super().panel(split)
            return TaskPanel(panel.env, panel.split, (), ()) if split == "train" else panel

    with ENVS.isolated():
        register_env("no-training-tasks")(NoTrainingTasks)
        yield "no-training-tasks"
    assert "no-training-tasks" not in ENVS.names()


def test_an_empty_training_panel_is_named_before_anything_is_written(warm, tmp_path, without_training_tasks):
    config = load_config(
        None, [*warm.settings, *RUN, f"train.init={warm.model}", f"env.name={without_training_tasks}"]
    )
    with pytest.raises(PreflightError, match=r"The panel .* \(train\.split=train\) has no tasks"):
        RLRun(set_up(config), tmp_path / "run")
    with pytest.raises(PreflightError, match="has no tasks"):
        run_training(config, tmp_path / "run")
    assert not any(path.name[0] != "." for path in (tmp_path / "run").glob("*"))  # a lock at most
    # what evaluates may go on: only training needs these tasks
    assert len(set_up(config).validation_panel()) == 8


def test_a_run_without_a_warm_start_is_refused(warm, tmp_path):
    with pytest.raises(PreflightError, match=r"train\.init is not set"):
        RLRun(set_up(load_config(None, [*warm.settings, *RUN])), tmp_path / "run")


def test_a_run_that_is_refused_leaves_no_settings_behind(warm, tmp_path):
    """So the command can be repeated with other settings."""
    settings = [*warm.settings, *RUN, f"train.init={warm.model}"]
    with pytest.raises(PreflightError, match="max_prompt_tokens"):
        RLRun(set_up(load_config(None, [*settings, "prompt.max_prompt_tokens=5"])), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
    run = RLRun(set_up(load_config(None, settings)), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").exists()
    assert run.iteration == 0
    assert not run.done()


@pytest.mark.parametrize("name", ["build_updater", "build_scorer", "MetricsLog", "run_info"])
def test_a_run_that_cannot_begin_closes_its_sampler(warm, tmp_path, monkeypatch, name):
    closed = []
    sampler = SimpleNamespace(close=lambda: closed.append(name), describe=lambda: None)

    def broken(*args):
        assert not closed
        raise OSError(name)

    monkeypatch.setattr(Setup, "sampler", lambda setup, policy: sampler)
    monkeypatch.setattr(rl, name, broken)
    config = load_config(None, [*warm.settings, *RUN, f"train.init={warm.model}"])
    with pytest.raises(OSError, match=name):
        RLRun(set_up(config), tmp_path / "run")
    assert closed == [name]


def test_a_run_that_begins_has_an_open_sampler(warm, tmp_path, monkeypatch):
    closed = []
    sampler = SimpleNamespace(close=lambda: closed.append("sampler"), describe=lambda: None)
    monkeypatch.setattr(Setup, "sampler", lambda setup, policy: sampler)
    config = load_config(None, [*warm.settings, *RUN, f"train.init={warm.model}"])
    told = []
    with pytest.warns(UserWarning, match=r"'repro-rl eval' of this run will fail: eval\.tasks is 500"):
        run = RLRun(set_up(config), tmp_path / "a", told.append)
    assert told == []  # as warmups do: what is probably not meant is a warning of Python's
    assert run.sampler is sampler
    assert closed == []


def test_the_first_of_the_best_validations_is_kept(warm, tmp_path, monkeypatch):
    config = load_config(
        None, [*warm.settings, *RUN, "eval.tasks=8", "train.keep=1", f"train.init={warm.model}"]
    )
    run = RLRun(set_up(config), tmp_path / "run")
    for iteration, success, best in ((2, 0.4, 2), (4, 0.5, 4), (6, 0.5, 4), (8, 0.4, 4)):
        monkeypatch.setattr(rl, "validation_success", lambda *args, share=success: share)
        run.state.iteration = iteration
        row = {}
        run.validate(row)
        assert row == {"validation/success": success, "validation/tasks": 8}
        assert run.kept() == (1, best)
    assert run.best == (0.5, 4)
