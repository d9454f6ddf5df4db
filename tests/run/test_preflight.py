"""Checks before a run starts."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from repro_rl.config import load_config, recipe_names
from repro_rl.envs import TaskPanel
from repro_rl.errors import ConfigError, PreflightError, TaskError, UnknownNameError
from repro_rl.run.models import load_policy
from repro_rl.run.preflight import (
    check_disk,
    check_names,
    check_prompt,
    check_training_panels,
    eval_contradictions,
)
from repro_rl.run.setup import set_up
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.train import run_training
from support.small import SMALL


def test_a_disk_must_hold_the_checkpoints_that_are_kept(tmp_path, monkeypatch):
    model = torch.nn.Linear(1000, 1000, bias=False)
    one = 3 * 4 * 1000 * 1000  # weights and two moments, float32
    for free, checkpoints in ((one * 4, 3), (one * 2, 1)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        check_disk(tmp_path / "new", model, checkpoints)
        with pytest.raises(PreflightError, match=r"lower train\.keep"):
            check_disk(tmp_path / "new", model, checkpoints + 1)
    model.requires_grad_(False)
    check_disk(tmp_path / "new", model, 100)  # only what is trained is written


def test_a_model_of_other_words_is_named(warm, tiny_folder):
    setup = set_up(load_config(None, warm.settings))
    for folder, fits in ((warm.model, True), (tiny_folder, False)):
        text = load_policy(setup.config.policy, folder).text
        context, task = setup.context(text), setup.panel("train").ids[0]
        if fits:
            check_prompt(context, setup.prompts, text, task)
        else:
            with pytest.raises(PreflightError, match=r"The tokenizer does not know '.*run a new warmup"):
                check_prompt(context, setup.prompts, text, task)


def test_a_first_prompt_must_fit(warm):
    setup = set_up(load_config(None, [*warm.settings, "prompt.max_prompt_tokens=5"]))
    text = load_policy(setup.config.policy, warm.model).text
    with pytest.raises(PreflightError, match=r"prompt\.max_prompt_tokens"):
        check_prompt(setup.context(text), setup.prompts, text, setup.panel("train").ids[0])


def panels(**sizes):
    """Panels of these sizes by split."""

    def panel(split):
        names = tuple(f"{split}/{i}" for i in range(sizes[split]))
        return TaskPanel("toy", split, names, names)

    return panel


def test_panels_smaller_than_asked_are_named_before_the_run():
    config = load_config(
        None, ["eval.tasks=5", "eval.validation_tasks=4", "train.groups=6", "train.minibatches=2"]
    )
    section, train = config.eval, config.train
    assert check_training_panels(panels(train=6, validation=4, test=5), section, train) == []
    with pytest.raises(TaskError, match=r"eval\.validation_tasks is 4, .*has 3 tasks; set .*=3 or less"):
        check_training_panels(panels(train=6, validation=3, test=5), section, train)
    few = check_training_panels(panels(train=5, validation=4, test=2), section, train)
    assert "train.groups is 6, but the split 'train' has 5 tasks" in few[0]
    assert "'repro-rl eval' of this run will fail: eval.tasks is 5, but the split 'test' has 2" in few[1]


def test_an_evaluation_asks_for_its_panel_before_the_model_is_loaded(tmp_path):
    config = load_config(None, [*SMALL, "eval.tasks=9"])
    with pytest.raises(TaskError, match=r"eval\.tasks is 9, but the split 'test' has 8 tasks"):
        evaluate(config, tmp_path / "no-model", EvalRequest("x"))


def test_a_training_asks_for_its_panels_before_the_model_is_loaded(tiny_folder, tmp_path):
    small = [*SMALL, f"train.init={tiny_folder}", "eval.validation_tasks=9"]
    with pytest.raises(TaskError, match=r"eval\.validation_tasks is 9"):
        run_training(load_config(None, small), tmp_path / "run")
    assert not any(path.name[0] != "." for path in (tmp_path / "run").glob("*"))  # a lock at most


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["eval.rollouts=2", "eval.temperature=0"], "all rollouts of a task are the same"),
        (["eval.split=train"], "no success on new ones"),
        (["eval.validation_split=test"], "which flatters it"),
        (["eval.validation_split=train"], "chosen on the tasks that they were trained on"),
        (["warmup.target_success=0.5", "warmup.updates=304", "warmup.check_every=5"], "none is checked"),
    ],
)
def test_contradictions_of_evaluations(overrides, words):
    base = ["warmup.forward_from=300", "warmup.updates=400", "warmup.target_success=null"]
    assert eval_contradictions(load_config(None, base)) == []
    (found,) = eval_contradictions(load_config(None, [*base, *overrides]))
    assert words in found


def test_recipes_do_not_contradict_themselves():
    for name in recipe_names():
        assert eval_contradictions(load_config(name)) == [], name


def test_names_are_looked_up_at_once():
    with pytest.raises(
        ConfigError, match=r"env\.name: Unknown environment 'sokobann'; did you mean 'sokoban'"
    ):
        check_names(load_config(None, ["env.name=sokobann"]))
    with pytest.raises(ConfigError, match=r"demos\.annotator: Unknown annotator 'orakle'.*'oracle'"):
        check_names(load_config(None, ["demos.annotator=orakle"]))
    with pytest.raises(UnknownNameError, match="sokobann"):
        set_up(load_config(None, ["env.name=sokobann"]))
