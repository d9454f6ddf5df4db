"""``repro-rl compare``: a whole tiny comparison, run for real."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from repro_rl.study import runner
from repro_rl.study.definition import forget_settings, load_study
from repro_rl.study.folder import write_study
from support.command import run_command
from support.forked import Forked

SMALL = {
    "env": {
        "name": "sokoban",
        "settings": {
            **{"style": "relative", "train_rooms": 8, "validation_rooms": 4, "test_rooms": 4},
            **{"solution": [2, 4], "max_steps": 4},
        },
    },
    "policy": {
        "model": "tiny",
        "device": "cpu",
        "tiny": {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "ffn": 16, "positions": 128},
    },
    "prompt": {"style": "compact", "resolution": 50, "action_tokens": 3, "reflect_new_tokens": 34},
    "demos": {"expert": 2, "winning": 2, "failing": 2},
    "warmup": {"updates": 2, "forward_from": 0, "forward_batch": 4, "reflect_batch": 4},
    "train": {"groups": 2, "group_size": 2, "minibatches": 1, "validate_every": 1, "record_every": 0},
    "eval": {"tasks": 4, "validation_tasks": 4},
}


@pytest.fixture
def imported(tiny_folder: Path) -> None:
    """All that a command imports, down to the model's own module; forks then have it."""
    from repro_rl.config import PolicySection
    from repro_rl.policy import TransformersPolicy

    for name in ("demos", "report.comparison", "study.evaluate", "train"):
        importlib.import_module(f"repro_rl.{name}")

    TransformersPolicy.load(tiny_folder, PolicySection(device="cpu"), training=True)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "launch", lambda command, log, lock: Forked(command, log))
    monkeypatch.setattr(runner, "POLL", 0.02)
    monkeypatch.setattr(runner, "can_fork", lambda devices: False)


def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    return run_command(capsys, monkeypatch, "compare", *words)


@pytest.mark.usefixtures("imported", "forked")
def test_a_whole_comparison(tmp_path, capsys, monkeypatch):
    """Two methods and two seeds for real: run, repeated, added to, one run failing, swept settings used."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(SMALL))
    study: dict[str, Any] = {
        "recipe": "small.yaml",
        "methods": ["repro", "gigpo"],
        "seeds": [0, 1],
        "env_steps": 20,
        "sweep": {"seeds": [5], "env_steps": 5, "knobs": {"train.lr": [0.001, 0.01]}, "last": 1},
    }
    # A run that fails stops no other.
    broken = {"name": "broken", "method": "gigpo", "init": "./nowhere/model", "tuned_as": "gigpo"}
    Path("study.yaml").write_text(yaml.safe_dump({**study, "methods": ["repro", "gigpo", broken]}))
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "out", "--jobs", "2")
    assert code == 1, text
    assert "FAILED run-broken-seed0" in text
    assert "No model folder at ./nowhere/model" in text
    assert "2 failed, 0 not run" in text
    assert text.count("finished warm-seed") == 3
    assert "broken: no result for seed 0, 1" in text

    out = Path("out")
    choice = json.loads((out / "sweep.json").read_text())["arms"]
    for arm, entry in choice.items():
        lines = [
            json.loads((out / f"sweep/{arm}/lr-{lr}/seed5/metrics.jsonl").read_text().splitlines()[-1])
            for lr in ("0.001", "0.01")
        ]
        scores = [line["validation/success"] for line in lines]
        assert [point["score"] for point in entry["scores"]] == scores
        assert entry["chosen"]["train.lr"] == (0.001 if scores[0] >= scores[1] else 0.01)
        config = yaml.safe_load((out / f"runs/{arm}/seed0/config.yaml").read_text())
        assert config["train"]["lr"] == entry["chosen"]["train.lr"]
        assert config["train"]["init"] == "out/warm/seed0/warmup/model"
    data = json.loads((out / "comparison.json").read_text())
    (block,) = data["evaluations"]
    for arm in block["arms"][:2]:
        for seed in (0, 1):
            result = json.loads((out / f"runs/{arm['name']}/seed{seed}/eval/last.json").read_text())
            assert arm["success"]["by_seed"][str(seed)] == result["success"]
        assert arm["env_steps"]["low"] >= 20
    manifest = json.loads((out / "study.json").read_text())
    assert block["digest"] in manifest["panels"]
    assert manifest["versions"]["repro-rl"]
    assert manifest["jobs"]["run-repro-seed1"]["status"] == "finished"
    assert manifest["jobs"]["run-broken-seed1"]["status"] == "failed"
    command = manifest["jobs"]["run-repro-seed1"]["commands"][0]
    assert command.startswith("repro-rl train -c small.yaml --method repro --init '{out}/warm/seed1/")
    for kind in ("md", "html", "svg", "png"):
        assert (out / f"comparison.{kind}").stat().st_size > 500

    # Repeated without the arm that cannot run: nothing runs again, the pages are the same.
    logs = {path: path.read_bytes() for path in (out / "jobs").glob("*.log")}
    Path("study.yaml").write_text(yaml.safe_dump(study))
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "out")
    assert code == 0, text
    assert "started" not in text
    assert {path: path.read_bytes() for path in (out / "jobs").glob("*.log")} == logs
    again = json.loads((out / "comparison.json").read_text())["evaluations"][0]
    assert [arm["success"] for arm in again["arms"]] == [arm["success"] for arm in block["arms"][:2]]

    # The folder holds this study, and another one is refused.
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "out", "train.group_size=4")
    assert code == 2
    assert "out holds another study" in text
    written = (out / "study.json").read_bytes()
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "out", "--env-steps", "19")
    assert code == 2
    assert "env_steps: 20 there, 19 now" in text
    assert (out / "study.json").read_bytes() == written
    recipe = yaml.safe_load(Path("small.yaml").read_text())
    edited = {**recipe, "train": {**recipe["train"], "group_size": 4}, "eval": {**recipe["eval"], "tasks": 3}}
    Path("small.yaml").write_text(yaml.safe_dump(edited))
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "out", "--seeds", "0-2")
    assert code == 2
    assert "small.yaml was changed since out was begun:\n  train.group_size: 2 there, 4 now\nUse" in text
    Path("small.yaml").write_text(yaml.safe_dump(recipe))
    forget_settings()  # a command reads a recipe once
    # Begun by an older version, when a setting had another name: the same recipe.
    (out / "study.json").write_text(written.decode().replace('"train.validate_every"', '"train.eval_every"'))
    assert (out / "study.json").read_bytes() != written
    # Without arguments it is continued; moved, its finished runs are still known.
    out.rename("moved")
    code, text = cli(capsys, monkeypatch, "-o", "moved", "--only", "final")
    assert code == 0, text
    assert "started" not in text
    code, text = cli(capsys, monkeypatch, "-o", "moved", "--dry-run")
    assert (
        "# run-gigpo-seed1 (finished)\nOMP_NUM_THREADS=1 repro-rl train -c small.yaml --method gigpo" in text
    )

    # With less memory too, and the folder says so.
    code, text = cli(capsys, monkeypatch, "-o", "moved", "--only", "final", "train.micro_tokens=512")
    assert (code, "started" in text) == (0, False), text
    changes = json.loads(Path("moved/study.json").read_text())["memory_changes"]
    assert changes == [{"train.micro_tokens": [16384, 512]}]

    # Seeds of two machines in one folder: what one has is copied into the other, and nothing runs again.
    for name, other in (("here", "1"), ("there", "0")):
        shutil.copytree("moved", name, ignore=shutil.ignore_patterns(f"*seed{other}*", "comparison*"))
    for name in ("jobs", "runs", "warm"):
        shutil.copytree(f"there/{name}", f"here/{name}", dirs_exist_ok=True)
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "here")
    assert code == 0, text
    assert "started" not in text
    merged = json.loads(Path("here/comparison.json").read_text())["evaluations"][0]
    assert merged == json.loads(Path("moved/comparison.json").read_text())["evaluations"][0]


@pytest.mark.parametrize(
    ("word", "status", "words"),
    [
        ("eval.tasks=5", 2, "Arm 'repro': eval.tasks is 5, but the split 'test' has 4 tasks"),
        ("eval.split=tst", 2, "no split 'tst'"),
        ("eval.rollouts=3", 0, "\n# Careful: "),
    ],
)
def test_a_dry_run_finds_what_a_run_would(
    word: str,
    status: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump({**SMALL, "eval": {**SMALL["eval"], "temperature": 0.0}}))
    code, text = cli(capsys, monkeypatch, "-c", "small.yaml", "-m", "repro", "-m", "gigpo", "--dry-run", word)
    assert (code, words in f"\n{text}") == (status, True), text
    assert ("repro-rl train" in text) == (status == 0)
    if status == 0:  # the output can be kept as a script
        lines = [line for line in text.splitlines() if line]
        assert all(line.startswith(("# ", "OMP_NUM_THREADS=1 repro-rl ")) for line in lines), text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no study in runs/study; name one"),
        (["-o", "empty", "--seeds", "0-2"], "no study in empty; name one"),
        (["-o", "empty", "--only", "table"], "no study in empty; name one"),
        (["one", "two"], "repro-rl report one two"),
        (["one"], "repro-rl report one"),
        (["held"], "held is the folder of a study; to continue it, give -o held"),
        (["a.yaml", "b.yaml"], "One study at a time, not a.yaml, b.yaml"),
    ],
)
def test_a_command_that_names_no_study_starts_none(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "held"):
        Path(name).mkdir()
    Path("held/study.json").write_text("{}")
    code, text = cli(capsys, monkeypatch, *words)
    assert (code, message in " ".join(text.split())) == (2, True), text
    assert not Path("runs").exists()
    assert not Path("empty").exists()


def test_changes_without_a_name_are_to_the_study_in_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_study(None, methods=["grpo"], seeds=[0], env_steps=1000, set=["train.group_size=4"])
    write_study(Path("held"), study, [], parallel=1)
    code, text = cli(capsys, monkeypatch, "-o", "held", "--seeds", "0-1", "train.lr=3e-4", "--dry-run")
    assert code == 0, text
    assert re.findall(r"^# (run-.*)$", text, re.MULTILINE) == ["run-grpo-seed0", "run-grpo-seed1"]
    assert text.count("train.group_size=4 train.lr=3e-4") >= 2
    assert "train.env_steps=1000" in text
