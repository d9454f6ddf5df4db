"""Every command makes the same checks before it plays a task or loads a model."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from repro_rl.config import RunConfig, dump_config, load_config
from repro_rl.envs import SokobanEnv
from repro_rl.envs.base import ENVS
from repro_rl.errors import ConfigError, PreflightError, ReproError, TaskError
from repro_rl.integrations.verl.data import sft_rows
from repro_rl.integrations.verl.launch import prepare_run
from repro_rl.integrations.verl.recipe import VerlRecipe
from repro_rl.plan.planner import PlanOptions, make_plan
from repro_rl.policy.gguf import convert
from repro_rl.run.lineage import untaught_prompts
from repro_rl.run.panels import Use
from repro_rl.run.preflight import preflight
from repro_rl.run.setup import set_up
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.train.start import open_training
from support.command import run_command
from support.sokoban import without_progress
from support.verl_sessions import setup_of

UNTAUGHT = r"Method gigpo has prompts that ask for the action alone\..*forward_modes=progress\).*-m meta"
LIMITS = ["method.rehearsal=0", "train.env_steps=null", "train.kl.form=k3", "method.judge=policy"]


@pytest.fixture
def unknowing() -> Iterator[str]:
    with without_progress() as name:
        yield name


@pytest.fixture
def taught_progress(warm: Any, tmp_path: Path) -> Path:
    """The model of a warmup that taught prompts with progress alone."""
    run = tmp_path / "warm"
    shutil.copytree(warm.run, run)
    config = load_config(None, [*warm.settings, "warmup.forward_modes=[progress]"])
    (run / "config.yaml").write_text(dump_config(config))
    return run / "model"


@pytest.fixture
def no_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files need a package that verl brings."""
    monkeypatch.setattr("repro_rl.integrations.verl.data.write_parquet", lambda path, rows: None)
    for module in ("data", "launch"):
        monkeypatch.setattr(f"repro_rl.integrations.verl.{module}.require_pyarrow", lambda: None)


def opened(config: RunConfig, out: Path) -> None:
    with closing(set_up(config)) as setup:
        open_training(setup, out)


def planned(config: RunConfig, out: Path) -> None:
    make_plan(config, [], PlanOptions(tasks=1))


def prepared(config: RunConfig, out: Path) -> None:
    prepare_run(VerlRecipe(config, {}), out)


def evaluated(config: RunConfig, out: Path) -> None:
    evaluate(config, str(config.train.init), EvalRequest("x", out=out, judge=False))


TRAININGS = [opened, planned, prepared]


@pytest.mark.parametrize("begin", TRAININGS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ["method=oracle", "method.rehearsal=0", "env.name=unknowing"],
            r"method\.shaping is 'oracle'.*'unknowing' gives none",
        ),
        (["eval.validation_tasks=9"], r"eval\.validation_tasks is 9, but the split 'validation' has 8"),
        (["train.split=trian"], r"train\.split: .*did you mean 'train'"),
        (["prompt.context=chat"], r"was trained with prompt\.context=window"),
    ],
)
def test_a_training_is_refused_wherever_it_begins(
    warm: Any, unknowing: str, tmp_path: Path, begin: Callable[..., None], change: list[str], words: str
) -> None:
    settings = [*warm.settings, *LIMITS, "train.validate_every=1", *change]
    config = load_config(None, [*settings, f"train.init={warm.model}"])
    with pytest.raises(ReproError, match=words):
        begin(config, tmp_path / "out")
    assert not (tmp_path / "out" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["prompt.action_tokens=2"], r"prompt\.action_tokens is 2, but the shortest answer has 3 tokens"),
        (["env.settings.style=grid"], r"The tokenizer does not know .* in the first prompt of"),
    ],
)
def test_verl_reads_the_tokenizer_before_anything_is_written(
    warm: Any, tmp_path: Path, no_parquet: None, change: list[str], words: str
) -> None:
    """Its workers would find out inside Ray, with the cluster taken."""
    config = load_config(None, [*warm.settings, *LIMITS, *change, f"train.init={warm.model}"])
    with pytest.raises(PreflightError, match=words):
        prepared(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("begin", [opened, prepared, evaluated])
def test_prompts_that_were_not_taught_are_said_wherever_a_model_acts(
    warm: Any, taught_progress: Path, tmp_path: Path, no_parquet: None, begin: Callable[..., None]
) -> None:
    settings = [*warm.settings, *LIMITS, "eval.tasks=1", f"train.init={taught_progress}", "method=gigpo"]
    config = load_config(None, settings)
    with pytest.warns(UserWarning, match=UNTAUGHT):
        begin(config, tmp_path / "out")


def test_a_plan_notes_what_a_training_warns_of(warm: Any, taught_progress: Path) -> None:
    settings = [*warm.settings, "train.validate_every=0", f"train.init={taught_progress}", "method=gigpo"]
    notes = make_plan(load_config(None, [*settings, "eval.tasks=99"]), [], PlanOptions(tasks=1)).notes
    assert any("reads them untaught" in note for note in notes)
    assert any("eval.tasks is 99" in note for note in notes)


def test_a_model_has_learned_the_prompts_that_it_was_trained_with(
    warm: Any, taught_progress: Path, tmp_path: Path
) -> None:
    """Whatever the warmup before taught."""
    run = tmp_path / "gigpo"
    (run / "model").mkdir(parents=True)
    config = load_config(None, [*warm.settings, f"train.init={taught_progress}", "method=gigpo"])
    (run / "config.yaml").write_text(dump_config(config))
    assert "untaught" in str(untaught_prompts(config.method, run / "model"))
    for kind in ("training", "verl"):
        (run / "manifest.json").write_text(json.dumps({"kind": kind}))
        assert untaught_prompts(config.method, run / "model") is None
    repro = load_config(None, [*warm.settings, "method=repro"]).method
    assert untaught_prompts(repro, run / "model") is None


def test_an_evaluation_warns_of_what_cannot_be_meant(warm: Any, tmp_path: Path) -> None:
    same = [*warm.settings, "eval.tasks=1", "eval.rollouts=2", "eval.temperature=0"]
    with pytest.warns(UserWarning, match="all rollouts of a task are the same"):
        evaluated(load_config(None, [*same, f"train.init={warm.model}"]), tmp_path)


def test_demonstrations_are_refused_and_remarked_on(
    unknowing: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    rooms = "env.settings={train_rooms: 3, validation_rooms: 1, test_rooms: 3, solution: [2, 3]}"
    few = ["demos={expert: 1, winning: 0, failing: 0, wandering: 0}", "eval={tasks: 1, validation_tasks: 1}"]
    out = tmp_path / "demos"
    for change, words in (
        (f"env.name={unknowing}", "demos.annotator is 'oracle'"),
        ("demos.split=trian", "demos.split: "),
    ):
        status, text = run_command(capsys, monkeypatch, "demos", "-o", out, rooms, *few, change)
        assert (status, words in text, out.exists()) == (2, True, False)
    status, text = run_command(capsys, monkeypatch, "demos", "-o", out, rooms, *few, "demos.split=test")
    assert status == 0
    assert "Careful: eval.split and demos.split are both 'test': the model was shown" in text


def test_the_task_files_of_verl_are_checked_too(
    warm: Any, tmp_path: Path, no_parquet: None, capsys: Any, monkeypatch: Any
) -> None:
    command = ("verl", "data", "-c", "sokoban-tiny", "-o", tmp_path, *warm.settings, *LIMITS)
    status, text = run_command(capsys, monkeypatch, *command, "eval.validation_split=train")
    assert status == 0
    assert "Careful: eval.validation_split and train.split are both 'train'" in text


def test_rows_for_the_supervised_trainer_of_verl_are_of_its_environment(warm: Any, tmp_path: Path) -> None:
    shutil.copytree(warm.demos, tmp_path / "demos")
    (tmp_path / "demos" / "demos.json").write_text('{"settings": {"env": {"name": "webshop"}}}')
    with pytest.raises(ConfigError, match=r"env\.name: 'webshop' there, 'sokoban' now"):
        sft_rows(setup_of(warm), tmp_path / "demos")


def test_a_file_is_not_converted_for_a_training_that_would_be_refused(
    unknowing: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("the conversion began")

    monkeypatch.setattr(convert, "convert_gguf", never)
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    train = ("train", "-o", tmp_path / "out", f"train.init={file}")
    for changes, words in (
        (("method=oracle", f"env.name={unknowing}"), "gives none"),
        (("train.callbacks=['nowhere_21:X']",), "cannot import 'nowhere_21'"),
    ):
        status, text = run_command(capsys, monkeypatch, *train, *changes)
        assert status == 2
        assert words in text


def test_a_pilot_that_warms_up_asks_for_its_trackers_first(
    tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    command = ("pilot", "-o", tmp_path / "out", "train.callbacks=['nowhere_21:X']")
    status, text = run_command(capsys, monkeypatch, *command)
    assert status == 2
    assert "cannot import 'nowhere_21'" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("compare", "-m", "repro", "-c", "sokoban-tiny", "policy.lora.rank=2"),
        ("demo", "-c", "sokoban-tiny", "policy.lora.rank=2"),
        ("pilot", "policy.lora.rank=2"),
        ("train", "train.init=m.gguf", "policy.lora.rank=2"),
    ],
)
def test_adapters_are_asked_for_before_anything_is_made(
    tmp_path: Path, capsys: Any, monkeypatch: Any, command: tuple[str, ...]
) -> None:
    """Not after the demonstrations, and not after a file was converted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "peft" else find(name, *more)
    )
    status, text = run_command(capsys, monkeypatch, *command, "-o", tmp_path / "out")
    assert status == 2
    assert "peft is not installed" in text
    assert ".[lora]" in text
    assert not (tmp_path / "out").exists()


def test_panels_that_the_caller_keeps_are_used() -> None:
    config = load_config(None, ["eval.tasks=1", "eval.validation_tasks=1"])
    env = ENVS.get("sokoban")(**config.env.settings)
    assert isinstance(env, SokobanEnv)
    asked: list[str] = []

    def panel(split: str) -> Any:
        asked.append(split)
        return env.panel(split)

    assert preflight(config, env, {Use.EVAL}, panel=panel) == []
    assert set(asked) == {"test"}  # its size, and tasks whose actions are looked at
    with pytest.raises(TaskError, match=r"eval\.tasks is 999"):
        preflight(load_config(None, ["eval.tasks=999"]), env, {Use.EVAL})
