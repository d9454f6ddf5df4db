"""The panels of a run: found too small, unknown, wrong or overlapping before anything is spent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from repro_rl import make
from repro_rl.config import load_config, recipe_names
from repro_rl.envs import TaskPanel
from repro_rl.envs.panel_file import read_panel, write_panel
from repro_rl.errors import DataError, PreflightError, TaskError
from repro_rl.run.panels import (
    Use,
    check_panels,
    eval_contradictions,
    eval_panel,
    training_uses,
    warmup_validates,
)
from repro_rl.run.setup import set_up
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.train import run_training
from support.small import SMALL

NOW = {Use.TRAIN, Use.VALIDATION}
FEW = ["eval.tasks=5", "eval.validation_tasks=4", "train.groups=6", "train.minibatches=2"]


def panels(**sizes):
    """Panels of these sizes by split."""

    def panel(split):
        if split not in sizes:
            raise TaskError(f"toy has no split {split!r}")
        names = tuple(f"{split}/{i}" for i in range(sizes[split]))
        return TaskPanel("toy", split, names, names)

    return panel


def test_panels_smaller_than_asked_are_named_before_the_run():
    config = load_config(None, FEW)
    assert check_panels(config, panels(train=6, validation=4, test=5), NOW) == []
    with pytest.raises(TaskError, match=r"eval\.validation_tasks is 4, .*has 3 tasks; set .*=3 or less"):
        check_panels(config, panels(train=6, validation=3, test=5), NOW)
    few = check_panels(config, panels(train=5, validation=4, test=2), NOW)
    assert "train.groups is 6, but the split 'train' has 5 tasks" in few[0]
    assert "'repro-rl eval' of this run will fail: eval.tasks is 5, but the split 'test' has 2" in few[1]
    with pytest.raises(TaskError, match=r"eval\.tasks is 5, but the split 'test' has 2"):
        check_panels(config, panels(train=6, validation=4, test=2), {Use.EVAL})
    with pytest.raises(TaskError, match=r"has 0 tasks; choose another eval\.split"):
        check_panels(config, panels(train=6, validation=4, test=0), {Use.EVAL})


@pytest.mark.parametrize(
    ("setting", "use"),
    [
        ("eval.validation_split", Use.VALIDATION),
        ("train.split", Use.TRAIN),
        ("demos.split", Use.DEMOS),
        ("eval.split", Use.EVAL),
    ],
)
def test_an_unknown_split_is_named_with_its_setting(setting, use):
    config = load_config(None, [*FEW, f"{setting}=nowhere"])
    with pytest.raises(TaskError, match=rf"^{re.escape(setting)}: toy has no split 'nowhere'"):
        check_panels(config, panels(train=6, validation=4, test=5), {use})


def test_a_run_that_never_validates_needs_no_validation_panel():
    never = load_config(None, [*FEW, "train.validate_every=0", "warmup.target_success=null"])
    assert training_uses(never.train) == {Use.TRAIN}
    assert warmup_validates(never.warmup) == frozenset()
    assert check_panels(never, panels(train=6, test=5), training_uses(never.train)) == []
    always = load_config(None, [*FEW, "train.validate_every=1", "warmup.target_success=0.5"])
    assert training_uses(always.train) == {Use.TRAIN, Use.VALIDATION}
    assert warmup_validates(always.warmup) == {Use.VALIDATION}


@pytest.mark.parametrize(("use", "setting"), [(Use.TRAIN, "train.split"), (Use.DEMOS, "demos.split")])
def test_a_split_without_tasks_is_named(use, setting):
    config = load_config(None, FEW)
    words = rf"toy/train\[0\].* \({re.escape(setting)}=train\) has no tasks.*env\.settings\.splits"
    with pytest.raises(PreflightError, match=words):
        check_panels(config, panels(train=0, validation=4, test=5), {use})


def test_tasks_in_two_splits_are_found_by_their_contents():
    """Under other names and ids, as with aliases and ranges of positions."""
    contents = {
        "rest": range(0, 30),
        "validation": range(25, 40),
        "dev": range(20, 24),
        "test": range(90, 95),
    }

    def panel(split):
        texts = tuple(f"room {n}" for n in contents[split])
        return TaskPanel("toy", split, tuple(f"{split}/{i}" for i in range(len(texts))), texts)

    settings = [*FEW, "train.split=rest", "demos.split=rest"]
    found = check_panels(load_config(None, [*settings, "eval.validation_tasks=15"]), panel, set(Use))
    assert found == [
        "5 of the 15 tasks of eval.validation_split 'validation' are also in train.split 'rest': checkpoints "
        "are chosen on the tasks that they were trained on.",
        "5 of the 15 tasks of eval.validation_split 'validation' are also in demos.split 'rest': checkpoints "
        "are chosen on tasks whose solutions the model was shown.",
    ]
    more = check_panels(
        load_config(None, [*settings, "eval.split=dev", "eval.tasks=3", "eval.validation_split=test"]),
        panel,
        NOW,
    )
    assert [line[:44] for line in more] == ["3 of the 3 tasks of eval.split 'dev' are als"]


def test_positions_of_webshop_overlap_where_papers_train_on_the_rest():
    config = load_config(
        None,
        [
            "env.name=webshop",
            "env.settings={splits: position, generated: [300, 0]}",
            *("train.split=rest", "eval.validation_split=eval", "eval.validation_tasks=20", "eval.tasks=20"),
        ],
    )
    (found,) = check_panels(config, set_up(config).pool.first.panel, NOW)
    assert "20 of the 20 tasks of eval.validation_split 'eval' are also in train.split 'rest'" in found


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
        (["eval.split=extra", "demos.split=extra"], "shown how these tasks are solved"),
        (["demos.split=validation"], "whose solutions the model was shown"),
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


# Panel files --------------------------------------------------------------------------------------

SMALL_ROOMS = {"train_rooms": 4, "validation_rooms": 4, "test_rooms": 6, "solution": [2, 5], "max_steps": 6}


@pytest.fixture
def exported(tmp_path):
    env = make("sokoban", **SMALL_ROOMS)
    path = tmp_path / "panel.json"
    write_panel(path, env, env.panel("test").head(5), SMALL_ROOMS)
    return path


def config_of(path, *more):
    rooms = (
        "env.settings={train_rooms: 4, validation_rooms: 4, test_rooms: 6, solution: [2, 5], max_steps: 6}"
    )
    return load_config(None, [rooms, f"eval.panel={path}", "eval.validation_tasks=4", *more])


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_panel_goes_through_a_file(tmp_path, suffix):
    env = make("alfworld", games=10)
    panel = env.panel("test")
    path = tmp_path / f"panel.{suffix}"
    write_panel(path, env, panel, {"games": 10})
    assert read_panel(path) == panel
    head = json.loads(path.read_text().splitlines()[0] if suffix == "jsonl" else path.read_text())
    assert head["digest"] == panel.digest
    assert (head["env"], head["size"], head["settings"]) == ("alfworld", len(panel), {"games": 10})
    assert sum(head["types"].values()) == len(panel)


def test_an_evaluation_plays_the_tasks_of_the_file(exported):
    few = ("train.groups=2", "train.minibatches=2")
    setup = set_up(config_of(exported, "eval.split=nowhere", "eval.tasks=999", *few))
    assert setup.eval_panel().ids == setup.panel("test").ids[:5]
    assert check_panels(setup.config, setup.pool.first.panel, set(Use)) == []


def test_a_file_may_hold_training_tasks_only_with_a_word(tmp_path):
    env = make("sokoban", **SMALL_ROOMS)
    write_panel(tmp_path / "p.jsonl", env, env.panel("train").head(3), SMALL_ROOMS)
    config = config_of(tmp_path / "p.jsonl", "train.groups=2", "train.minibatches=2")
    (found,) = check_panels(config, env.panel, NOW)
    assert found.startswith("3 of the 3 tasks of eval.panel are also in train.split 'train'")


def test_a_file_of_another_environment_or_other_settings(exported):
    def check(*settings):
        config = load_config(None, [f"eval.panel={exported}", *settings])
        return eval_panel(config.eval, set_up(config).pool.first.panel)

    with pytest.raises(
        TaskError, match=r"eval\.panel: .*holds sokoban/test\[5\].*has no such task.*env.settings"
    ):
        check("env.settings={solution: [3, 5], max_steps: 6, train_rooms: 2, test_rooms: 6}")
    with pytest.raises(TaskError, match=r"has no such task"):
        check("env.name=alfworld", "env.settings={games: 10}")
    config = config_of(exported)
    with pytest.raises(TaskError, match=r"eval\.panel: .*holds sokoban/test\[5\]"):
        evaluate(config.model_copy(update={"env": load_config(None).env}), "no-model", EvalRequest("x"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["tasks"].pop(), "has 4 tasks with digest .* says 5"),
        (lambda data: data["tasks"][0].update(content="#"), "has 5 tasks with digest .*edited or cut off"),
        (lambda data: data["tasks"].append(data["tasks"][0]), "has the task .* twice"),
        (lambda data: data.update(tasks=[]), "has no tasks"),
        (lambda data: data.pop("digest"), "digest"),
        (lambda data: data.update(format="other"), "is no 'repro-rl panel 1'"),
        (lambda data: data.update(tasks=[{"id": 7}]), "task 0"),
    ],
)
def test_a_broken_file_is_named(exported, change, words):
    data = json.loads(exported.read_text())
    change(data)
    exported.write_text(json.dumps(data))
    with pytest.raises(DataError, match=rf"(?s)panel\.json.*{words}"):
        check_panels(config_of(exported), make("sokoban", **SMALL_ROOMS).panel, {Use.EVAL})


@pytest.mark.parametrize("text", ["", "[]", "{", "no json"])
def test_a_file_that_is_no_panel_at_all(tmp_path, text):
    for name in ("p.json", "p.jsonl"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=re.escape(name)):
            read_panel(Path(tmp_path / name))
    with pytest.raises(DataError, match="absent"):
        read_panel(tmp_path / "absent.json")


def test_a_panel_file_without_tasks_names_the_field(tmp_path):
    file = tmp_path / "panel.json"
    file.write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"panel\.json, field tasks: Field required"):
        read_panel(file)
