"""A study continues with other memory settings, with a warning and a note; what has finished stays so."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from repro_rl.errors import ConfigError
from repro_rl.files import write_json
from repro_rl.study.definition import Study, load_study
from repro_rl.study.folder import check_same, write_study
from repro_rl.study.jobs import Job
from repro_rl.study.memory_changes import lasting, memory_changes
from repro_rl.study.runner import is_finished, record_file

RECIPE = {"base": "sokoban-tiny", "train": {"micro_tokens": 4096}}
ARMS: list[Any] = ["repro", {"name": "small", "method": "gigpo", "set": ["train.micro_tokens=512"]}]


def study_of(recipe: dict[str, Any] = RECIPE, arms: list[Any] = ARMS, settings: Sequence[str] = ()) -> Study:
    """A study of a recipe in this directory."""
    Path("own.yaml").write_text(yaml.safe_dump(recipe))
    return load_study(None, recipe="own.yaml", methods=arms, seeds=[0], set=list(settings))


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of ``study_of()``, in which a run has done something."""
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    write_study(out, study_of(), [], parallel=1)
    run = out / "runs/repro/seed0"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"iteration": 1}\n')
    return out


def arms_with(*settings: str) -> list[Any]:
    return [ARMS[0], {**ARMS[1], "set": list(settings)}]


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({"settings": ["train.micro_tokens=1024"]}, {"train.micro_tokens": [4096, 1024]}),
        (
            {"settings": ["policy.max_cache_tokens=2048", "policy.max_cache_tokens=1024"]},
            {"policy.max_cache_tokens": [1048576, 1024]},
        ),
        (
            {"recipe": {**RECIPE, "train": {"micro_tokens": 4096, "gradient_checkpointing": True}}},
            {"train.gradient_checkpointing": [False, True]},
        ),
        (
            {"recipe": {**RECIPE, "policy": {"max_batch_tokens": 8192}}},
            {"policy.max_batch_tokens": [32768, 8192]},
        ),
        (
            {"arms": arms_with("train.micro_tokens=256")},
            {"small: train.micro_tokens": [512, 256]},
        ),
    ],
)
def test_a_study_continues_with_other_memory_settings(
    changes: dict[str, Any], noted: dict[str, Any], begun: Path
) -> None:
    study = study_of(**changes)
    with pytest.warns(
        UserWarning, match="out continues with other settings of memory or kernels; results are equal but"
    ):
        check_same(begun, study)
    write_study(begun, study, [], parallel=1)
    write_study(begun, study, [], parallel=1)  # a command writes it several times
    assert json.loads((begun / "study.json").read_text())["memory_changes"] == [noted]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(begun, study)


def test_what_comes_to_the_same_is_no_change(begun: Path) -> None:
    study = study_of(settings=["train.micro_tokens=4096"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(begun, study)
    write_study(begun, study, [], parallel=1)
    assert "memory_changes" not in json.loads((begun / "study.json").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"settings": ["train.micro_tokens=1024", "train.lr=0.5"]},
            r"set: \[\] there, \['train\.lr=0\.5'\]",
        ),
        (
            {"recipe": {"base": "sokoban-tiny", "train": {"lr": 0.5}}},
            r"begun:\n  train\.lr: 0\.001 .*, 0\.5 now\n",
        ),
        ({"arms": arms_with("train.lr=0.5")}, r"arm small: .*train\.lr=0\.5"),
        (
            {"arms": arms_with("policy.max_cache_tokens=1024")},
            r"arm small: .*its own, for \['policy\.max_cache_tokens=1024'\]; put that into the study's set",
        ),
    ],
)
def test_with_other_settings_it_does_not(changes: dict[str, Any], message: str, begun: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_same(begun, study_of(**changes))
    assert "set: ['train.micro_tokens" not in str(caught.value)


def test_an_adapter_with_dropout_fixes_them(begun: Path) -> None:
    dropping = {**RECIPE, "policy": {"lora": {"rank": 2, "dropout": 0.1}}}
    write_study(begun, study_of(dropping), [], parallel=1)
    check_same(begun, study_of(dropping))
    reason = (
        r"\ntrain\.micro_tokens: fixed here, because masks of policy\.lora\.dropout depend on the cut\.\nUse"
    )
    for recipe, settings in (
        (dropping, ["train.micro_tokens=1024"]),
        ({**dropping, "train": {"micro_tokens": 1024}}, []),
    ):
        with pytest.raises(ConfigError, match=reason):
            check_same(begun, study_of(recipe, settings=settings))


def test_a_study_of_an_older_version_does_not_tell_its_recipe(begun: Path) -> None:
    file = begun / "study.json"
    content = json.loads(file.read_text())
    del content["recipe"], content["study"]["set"]
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"train\.micro_tokens: 4096 there, 1024 now"):
        check_same(begun, study_of(settings=["train.micro_tokens=1024"]))


def test_the_sweep_and_new_arms() -> None:
    then = {"methods": [], "sweep": {"set": ["train.micro_tokens=64", "train.lr=1"], "last": 3}}
    now = {"methods": [{"name": "new", "set": ["train.micro_tokens=8"]}], "sweep": None}
    assert lasting(then)["sweep"] == {"set": ["train.lr=1"], "last": 3}
    assert lasting(now)["methods"] == [{"name": "new", "set": []}]
    assert memory_changes((then, {}), (now, {})) == [("sweep: train.micro_tokens", 64, None)]


def test_a_finished_job_stays_finished_and_says_how_it_ran(tmp_path: Path) -> None:
    folder = tmp_path / "runs/a/seed0"
    ran, asked, other = (
        Job("a", "final", "a", 0, folder, (("train", "-o", str(folder), *settings),))
        for settings in (["train.micro_tokens=512", "seed=0"], ["seed=0"], ["seed=1"])
    )
    commands = [["train", "-o", "{out}/runs/a/seed0", "train.micro_tokens=512", "seed=0"]]
    write_json(record_file(tmp_path, ran), {"status": "finished", "commands": commands})
    assert [is_finished(tmp_path, job) for job in (ran, asked, other)] == [True, True, False]
    study = load_study(None, methods=["grpo"], seeds=[0])
    write_study(tmp_path, study, [asked], parallel=1)
    held = json.loads((tmp_path / "study.json").read_text())["jobs"]["a"]["commands"]
    assert held == ["repro-rl train -o '{out}/runs/a/seed0' train.micro_tokens=512 seed=0"]
