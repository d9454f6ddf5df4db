"""What the run that made a model recorded of it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from repro_rl.config import dump_config, load_config
from repro_rl.config.paths import read_run_section
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.run.lineage import (
    check_context,
    demos_of,
    other_settings,
    taught_modes,
    taught_prompt,
    untaught_prompts,
    untaught_scoring,
)
from repro_rl.run.panels import Use
from repro_rl.run.preflight import preflight
from repro_rl.run.setup import set_up
from repro_rl.train.start import open_training
from support.command import run_command

PROGRESS_ALONE = ["warmup.forward_modes=[progress]"]


def settings(warm, *more):
    return load_config(None, [*warm.settings, f"train.init={warm.model}", *more])


def test_the_demonstrations_of_a_renamed_study_are_found(warm, tmp_path):
    """Found by their content: other demonstrations under the name are left alone."""
    run = tmp_path / "renamed" / "warmup"
    shutil.copytree(warm.run, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["demos"] = "original/demos"
    (run / "manifest.json").write_text(json.dumps(manifest))
    train = settings(warm, f"train.init={run / 'model'}").train
    assert demos_of(train) == Path("original/demos")  # and what reads it says that it is missing
    other = tmp_path / "renamed" / "demos"
    shutil.copytree(warm.demos, other)
    assert demos_of(train) == other
    (other / "expert.jsonl.gz").write_bytes(gzip.compress(b"other\n"))
    assert demos_of(train) == Path("original/demos")
    (other / "expert.jsonl.gz").write_bytes(b"damaged")
    assert demos_of(train) == Path("original/demos")


def test_the_demonstrations_come_from_the_warm_start(warm, tmp_path):
    manifest = json.loads((warm.run / "manifest.json").read_text())
    assert manifest["demos"] == str(warm.demos)
    assert demos_of(settings(warm, "method.rehearsal=4").train) == warm.demos
    assert demos_of(settings(warm, f"train.init={warm.run}").train) == warm.demos
    (checkpoint,) = (warm.run / "checkpoints").glob("*[0-9]")
    assert demos_of(settings(warm, f"train.init={checkpoint}").train) == warm.demos
    assert demos_of(settings(warm, f"train.demos={tmp_path}").train) == tmp_path
    later, latest = (tmp_path / name / "model" for name in ("later", "latest"))
    for model, init in ((later, warm.model), (latest, later)):
        model.mkdir(parents=True)
        config = settings(warm, f"train.init={init}")
        (model.parent / "config.yaml").write_text(dump_config(config))
    assert demos_of(settings(warm, f"train.init={latest}").train) == warm.demos
    (later.parent / "config.yaml").write_text(dump_config(settings(warm, f"train.init={latest}")))
    with pytest.raises(PreflightError, match=r"train\.demos=FOLDER"):  # each names the other
        demos_of(settings(warm, f"train.init={latest}").train)
    config = load_config(None, [*warm.settings, f"train.init={tmp_path}/x/model", "method.rehearsal=4"])
    with pytest.raises(PreflightError, match=r"train\.demos=FOLDER"):
        demos_of(config.train)


def test_the_modes_that_a_model_was_taught(warm, tmp_path):
    assert taught_prompt(warm.model).context == "window"
    assert taught_modes(warm.run) == taught_modes(warm.model) == {"action", "progress"}
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "config.yaml").write_text(dump_config(settings(warm, "warmup.forward_modes=[action]")))
    assert taught_modes(trained) == {"action", "progress"}  # those of its warm start
    for other in (tmp_path, "api:someone", "Qwen/Qwen3-0.6B"):
        assert taught_prompt(other) is None
        assert taught_modes(other) is None


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ("", "prompt.report=after", r"prompt\.report=before, this run has prompt\.report=after: .* untaught"),
        (
            "prompt.resolution=10",
            "prompt.resolution=50",
            r"prompt\.resolution=10, this run has prompt\.resolution=50",
        ),
        ("", "prompt.style=full", r"prompt\.style=compact, this run has prompt\.style=full"),
        ("", "prompt.history=3", None),  # which compact prompts do not have
        ("prompt.style=full", "prompt.history=3", r"prompt\.history=0, this run has prompt\.history=3"),
        ("prompt.style=full", "prompt.admissible=off", r"prompt\.admissible=on, .*admissible=off"),
        ("prompt.style=full prompt.think=required", "prompt.think=off", r"think=required, .*think=off"),
        ("prompt.style=full prompt.context=chat", "prompt.history=3", None),
        ("prompt.style=full", "prompt.max_prompt_tokens=77", None),
    ],
)
def test_prompts_of_other_settings_are_untaught(warm, tmp_path, before, now, words):
    run = tmp_path / "warm"
    (run / "model").mkdir(parents=True)
    (run / "config.yaml").write_text(dump_config(settings(warm, *before.split())))
    taught = taught_prompt(run / "model")
    found = other_settings(settings(warm, *before.split(), now).prompt, run / "model", taught)
    if words is None:
        assert found is None
    else:
        assert re.search(words, found)
    assert other_settings(settings(warm, *before.split()).prompt, run / "model", taught) is None
    assert other_settings(settings(warm, now).prompt, "Qwen/Qwen3-0.6B", None) is None


def test_what_a_model_was_taught_is_read_once(warm, monkeypatch):
    """A command would else read and check the same settings for every question that it asks of them."""
    read: list[str] = []

    def counted(run, name):
        read.append(name)
        return read_run_section(run, name)

    monkeypatch.setattr("repro_rl.run.lineage.read_run_section", counted)
    config = settings(warm)
    with closing(set_up(config)) as setup:
        preflight(config, setup.pool.first, {Use.TRAIN}, model=warm.model)
    assert read.count("prompt") == 1


def test_training_says_that_its_prompts_were_not_taught(warm, tmp_path):
    """A warmup that taught prompts with progress only, as those of the paper's recipes do."""
    run = tmp_path / "warm"
    shutil.copytree(warm.run, run)
    (run / "config.yaml").write_text(dump_config(load_config(None, warm.settings + PROGRESS_ALONE)))
    words = r"Method gigpo has prompts that ask for the action alone\..*forward_modes=progress\).*-m meta"
    with (
        closing(set_up(settings(warm, f"train.init={run / 'model'}", "method=gigpo"))) as setup,
        pytest.warns(UserWarning, match=words),
    ):
        open_training(setup, tmp_path / "gigpo")
    for method in ("meta", "repro"):
        assert untaught_prompts(settings(warm, f"method={method}").method, run / "model") is None
    assert untaught_prompts(settings(warm, "method=gigpo").method, warm.model) is None
    assert untaught_prompts(settings(warm, "method=gigpo").method, "Qwen/Qwen3-0.6B") is None


def test_training_says_that_the_prompts_of_its_scoring_were_not_taught(warm, tmp_path):
    """RL never trains on them, so a trained model knows those of its warm start."""
    run = tmp_path / "warm"
    shutil.copytree(warm.run, run)
    told = ["warmup.forward_modes=[action, progress, privileged-end]"]
    (run / "config.yaml").write_text(dump_config(load_config(None, warm.settings + told)))
    trained = tmp_path / "trained"
    shutil.copytree(run, trained)
    (trained / "config.yaml").write_text(dump_config(settings(warm, f"train.init={run / 'model'}")))
    for model in (run / "model", trained / "model"):
        for method, mode in (
            ("method=hcapo", None),
            ("method=self-distill", "privileged-reflection"),
            ("method={name: hcapo, hindsight: reflection, reflect: true}", "privileged-reflection"),
            ("method={name: hcapo, reflect: true, distill: {coef: 0.1}}", "privileged-reflection"),
            ("method=gigpo", None),
        ):
            found = untaught_scoring(settings(warm, method).method, model)
            if mode is None:
                assert found is None
            else:
                assert f"prompts of the mode {mode}. The warmup behind {model} taught" in found
                assert "forward_modes=action,privileged-end,progress)" in found
                assert found.endswith(f"Run a warmup that has {mode} in warmup.forward_modes.")
    asks = settings(warm, "method={name: repro, distill: {coef: 0.1}}").method
    assert "No mode of warmup.forward_modes teaches these" in untaught_scoring(asks, warm.model)
    assert untaught_scoring(asks, "Qwen/Qwen3-0.6B") is None
    with (
        closing(set_up(settings(warm, f"train.init={warm.model}", "method=hcapo"))) as setup,
        pytest.warns(UserWarning, match=r"also scores answers with prompts of the mode privileged-end\."),
    ):
        open_training(setup, tmp_path / "hcapo")


def test_a_model_is_used_in_the_context_mode_it_was_trained_in(warm, tmp_path):
    window = load_config(None, warm.settings).prompt
    chat = window.model_copy(update={"context": "chat"})
    check_context(window, warm.model, taught_prompt(warm.model))
    with pytest.raises(ConfigError, match=r"trained with prompt.context=window, this run has .*=chat"):
        check_context(chat, warm.model, taught_prompt(warm.model))
    with pytest.warns(UserWarning, match="reads these prompts untaught"):
        check_context(chat.model_copy(update={"style": "full"}), warm.model, taught_prompt(warm.model))
    check_context(chat, "api:someone", taught_prompt("api:someone"))
    check_context(chat, tmp_path, taught_prompt(tmp_path))  # made by no run here


def test_policy_model_and_init_must_not_name_two_models(tmp_path, monkeypatch):
    from repro_rl.run.lineage import check_base

    monkeypatch.chdir(tmp_path)
    warm = tmp_path / "warm"
    (warm / "model").mkdir(parents=True)
    (warm / "config.yaml").write_text("policy: {model: Qwen/Qwen3-0.6B}\n")
    (tmp_path / "plain").mkdir()
    check_base("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B")
    check_base("Qwen/Qwen3-0.6B", str(warm / "model"))
    check_base("plain", str(tmp_path / "plain"))
    with pytest.raises(ConfigError, match=r"was made from Qwen/Qwen3-0\.6B"):
        check_base("Qwen/Qwen3-4B", str(warm / "model"))
    with pytest.raises(ConfigError, match="is another model"):
        check_base("Qwen/Qwen3-4B", "plain")


def test_a_missing_init_is_not_called_another_model(tmp_path, monkeypatch, capsys):
    """Where the warmup was not run, or failed: loading the model says that it is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    words = ("train", "-c", "sokoban-tiny", "--init", "runs/a/warmup/model", "policy.model=mine")
    status, printed = run_command(capsys, monkeypatch, *words)
    assert status == 2
    assert "No model folder at runs/a/warmup/model" in " ".join(printed.split())
