"""Checks before a run starts."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from repro_rl.config import load_config, parse_config
from repro_rl.errors import ConfigError, PreflightError, UnknownNameError
from repro_rl.run.models import load_policy
from repro_rl.run.panels import Use
from repro_rl.run.preflight import check_disk, check_prompt, check_truth, unknown_annotator
from repro_rl.run.setup import set_up
from support.checkpoints import empty_checkpoint
from support.sokoban import without_progress


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


def test_checkpoints_that_are_there_need_no_more_room(tmp_path, monkeypatch):
    """Else a run that fills its disk could not be continued."""
    model = torch.nn.Linear(1000, 1000, bias=False)
    one = 3 * 4 * 1000 * 1000
    for there, needed in enumerate([4, 3, 2, 1, 1, 1], start=0):  # with 5, train.keep was lowered since
        if there:
            empty_checkpoint(tmp_path, there)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, n=needed: SimpleNamespace(free=n * one))
        check_disk(tmp_path, model, 3)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, n=needed: SimpleNamespace(free=n * one - 1))
        with pytest.raises(PreflightError, match=f"need about {12 * needed}.0 MB more"):
            check_disk(tmp_path, model, 3)


def test_a_model_of_other_words_is_named(warm, tiny_folder):
    setup = set_up(load_config(None, warm.settings))
    for folder, fits in ((warm.model, True), (tiny_folder, False)):
        text = load_policy(setup.config.policy, folder).codec
        context, task = setup.context(text), setup.panel("train").ids[0]
        if fits:
            check_prompt(context, setup.prompts, text, task)
        else:
            advice = r"The tokenizer does not know '.*a new warmup\. .* let vocabulary\(\) name all its words"
            with pytest.raises(PreflightError, match=advice):
                check_prompt(context, setup.prompts, text, task)


def test_a_first_prompt_must_fit(warm):
    setup = set_up(load_config(None, [*warm.settings, "prompt.max_prompt_tokens=5"]))
    text = load_policy(setup.config.policy, warm.model).codec
    with pytest.raises(PreflightError, match=r"prompt\.max_prompt_tokens"):
        check_prompt(setup.context(text), setup.prompts, text, setup.panel("train").ids[0])


def test_names_are_looked_up_at_once():
    message = (
        r"^demos\.annotator: Unknown annotator 'orakle'.*'oracle'.*\nSet by the override 'demos\.annotator="
    )
    with pytest.raises(ConfigError, match=message):
        load_config(None, ["demos.annotator=orakle"], check=unknown_annotator)
    assert unknown_annotator(load_config(None, ["demos.annotator=linear"])) == []
    with pytest.raises(UnknownNameError, match="sokobann"):
        set_up(parse_config({"env": {"name": "sokobann"}}))


@pytest.fixture
def unknowing():
    with without_progress() as name:
        yield name


@pytest.mark.parametrize(
    ("settings", "use", "said"),
    [
        (["method=oracle"], Use.TRAIN, r"method.shaping is 'oracle' \(method oracle\)"),
        (["method=oracle-act"], Use.TRAIN, r"method.shaping is 'oracle' \(method oracle-act\)"),
        (["method=repro", "method.alignment=oracle"], Use.TRAIN, "method.alignment is 'oracle'"),
        (["method=g2po", "method.value_source=oracle"], Use.TRAIN, "method.value_source is 'oracle'"),
        (["method=gigpo"], Use.DEMOS, "demos.annotator is 'oracle'"),
        (["method=gigpo", "demos.annotator=linear"], Use.DEMOS, ""),
        (["method=gigpo"], Use.TRAIN, ""),
        (["method=oracle"], Use.EVAL, ""),
    ],
)
def test_what_needs_true_progress_must_find_some(unknowing, settings, use, said):
    rooms = "env.settings={train_rooms: 3, validation_rooms: 1, test_rooms: 1, solution: [2, 3]}"
    for name in (unknowing, "sokoban"):
        config = load_config(None, [f"env.name={name}", rooms, *settings])
        setup = set_up(config)
        if said and name == unknowing:
            with pytest.raises(ConfigError, match=f"{said}.*'unknowing' gives none: info"):
                check_truth(config, setup.pool.first, setup.panel, {use})
        else:
            check_truth(config, setup.pool.first, setup.panel, {use})
