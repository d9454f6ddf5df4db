"""Whole runs: a killed one ends with the same weights, a small one learns, and every method runs."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from repro_rl.config import METHODS, load_config
from repro_rl.credit.reward import TERMS
from repro_rl.errors import CheckpointError, ConfigError, PreflightError, TrainingStopped
from repro_rl.policy import TransformersPolicy
from repro_rl.rollout import Actor, PlayOptions, read_trajectories
from repro_rl.rollout.counts import success_rate
from repro_rl.run.model_paths import find_model
from repro_rl.run.models import load_policy
from repro_rl.run.setup import set_up
from repro_rl.run.validation import panel_requests
from repro_rl.train import RLRun, run_training, run_warmup
from repro_rl.train.update import Updater
from repro_rl.types import Sample, TokenKind

TRAIN_SCRIPT = """
import json, sys
from pathlib import Path
from repro_rl.config import load_config
from repro_rl.train import run_training, run_warmup
stage, settings, out, demos = json.loads(sys.argv[1])
config = load_config(None, settings)
if stage == "train":
    run_training(config, Path(out))
else:
    run_warmup(config, Path(demos), Path(out))
"""


def start(stage: str, settings: list[str], out: Path, demos: Path) -> subprocess.Popen[bytes]:
    """The stage in a process of its own; its exit status tells whether it was killed."""
    argument = json.dumps([stage, settings, str(out), str(demos)])
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN_SCRIPT, argument],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """SIGKILL as soon as ``ready``; a process that ends by itself before that is a failure of the test."""
    deadline = time.monotonic() + 600
    try:
        while not ready():
            assert process.poll() is None, f"ended by itself with {process.returncode}"
            assert time.monotonic() < deadline, "never came so far"
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


def metric_rows(run: Path) -> list[dict[str, object]]:
    rows = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows.append({k: v for k, v in row.items() if k != "seconds" and not k.startswith("time/")})
    return rows


def lines_in(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def assert_same_tensors(one: Path, two: Path) -> None:
    first, second = load_file(one), load_file(two)
    assert first.keys() == second.keys()
    assert first
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name


# A killed run -------------------------------------------------------------------------------------

SMALL_RUN = [
    "method=repro",
    "train.groups=8",
    "train.group_size=8",
    "train.minibatches=2",
    "train.iterations=6",
    "train.save_every=2",
    "train.validate_every=3",
    "train.record_every=5",
]


def test_a_killed_training_ends_with_the_same_weights(warm, tmp_path):
    settings = [*warm.settings, *SMALL_RUN, f"train.init={warm.run}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_training(load_config(None, settings), whole)

    process = start("train", settings, broken, warm.demos)
    # past the first checkpoint (2) and in the middle of what comes after it
    kill_when(
        process,
        lambda: (
            (broken / "checkpoints" / "00002" / "state.json").exists()
            and lines_in(broken / "metrics.jsonl") >= 3
        ),
    )
    killed_at = lines_in(broken / "metrics.jsonl")
    assert killed_at < 6
    assert not (broken / "checkpoints" / "00006").exists()
    # what a kill at the worst moments leaves: half a line, half a checkpoint
    with open(broken / "metrics.jsonl", "a") as handle:
        handle.write('{"iteration": 4, "roll')
    half = broken / "checkpoints" / ".00004.77.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")

    process = start("train", settings, broken, warm.demos)
    assert process.wait(timeout=600) == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert_same_tensors(whole / "checkpoints" / "00006" / name, broken / "checkpoints" / "00006" / name)
    assert metric_rows(broken) == metric_rows(whole)
    assert [row["iteration"] for row in metric_rows(whole)] == [1, 2, 3, 4, 5, 6]
    assert not list((broken / "checkpoints").glob(".*"))
    assert sorted(p.name for p in (broken / "checkpoints").iterdir()) == sorted(
        p.name for p in (whole / "checkpoints").iterdir()
    )
    last = Path("checkpoints") / "00006"
    states = [json.loads((run / last / "state.json").read_text()) for run in (whole, broken)]
    for state in states:
        assert state.pop("seconds") > 0
        assert state.pop("state_sha256")
    assert states[0] == states[1]
    # the recorded rollouts are the same bytes
    files = sorted(p.name for p in (whole / "trajectories").iterdir())
    assert files == ["iteration-00001.jsonl.gz", "iteration-00005.jsonl.gz"]
    for name in files:
        assert (whole / "trajectories" / name).read_bytes() == (broken / "trajectories" / name).read_bytes()
    manifest = json.loads((broken / "manifest.json").read_text())
    assert len(manifest["continued"]) == 1
    # the weights did move, and a finished run is not run again
    with pytest.raises(AssertionError):
        assert_same_tensors(warm.model / "model.safetensors", whole / last / "model.safetensors")
    stamp = (whole / "checkpoints" / "00006" / "state.json").stat().st_mtime_ns
    assert run_training(load_config(None, settings), whole).iteration == 6
    assert (whole / "checkpoints" / "00006" / "state.json").stat().st_mtime_ns == stamp


def test_a_killed_warmup_ends_with_the_same_weights(warm, tmp_path):
    settings = [
        *warm.settings,
        "warmup.updates=36",
        "warmup.save_every=12",
        "warmup.forward_from=20",
        "warmup.target_success=1.0",
        "warmup.check_every=8",
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = run_warmup(load_config(None, settings), warm.demos, whole)
    process = start("warmup", settings, broken, warm.demos)
    kill_when(
        process,
        lambda: (
            (broken / "checkpoints" / "00012" / "state.json").exists()
            and lines_in(broken / "metrics.jsonl") >= 15
        ),
    )
    assert lines_in(broken / "metrics.jsonl") < 36
    assert not (broken / "model").exists()
    again = run_warmup(load_config(None, settings), warm.demos, broken)
    assert_same_tensors(model / "model.safetensors", again / "model.safetensors")
    assert_same_tensors(
        whole / "checkpoints" / "00036" / "optimizer.safetensors",
        broken / "checkpoints" / "00036" / "optimizer.safetensors",
    )
    assert metric_rows(whole) == metric_rows(broken)
    assert len(metric_rows(whole)) == 36
    rows = metric_rows(whole)
    assert [row["iteration"] for row in rows if "validation/success" in row] == [24, 32]
    assert [row["iteration"] for row in rows if "warmup/forward_loss" in row] == list(range(21, 37))


def test_more_iterations_may_be_asked_for(warm, tmp_path):
    settings = [
        *warm.settings,
        *SMALL_RUN,
        "train.validate_every=0",
        f"train.init={warm.run}",
        "eval.tasks=8",
    ]
    first = run_training(load_config(None, [*settings, "train.iterations=2"]), tmp_path / "run")
    assert first.iteration == 2
    texts: list[str] = []
    second = run_training(
        load_config(None, [*settings, "train.iterations=3"]), tmp_path / "run", on_text=texts.append
    )
    assert second.iteration == 3
    assert texts[0] == f"Continuing {tmp_path / 'run'} after iteration 2."
    whole = run_training(load_config(None, [*settings, "train.iterations=3"]), tmp_path / "whole")
    for (name, one), (_, two) in zip(
        whole.policy.model.state_dict().items(), second.policy.model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, two), name
    with pytest.raises(ConfigError, match=r"train\.lr"):
        RLRun(set_up(load_config(None, [*settings, "train.lr=1e-4"])), tmp_path / "run")
    assert find_model(tmp_path / "run", "warm-start") == warm.model


# A run that learns --------------------------------------------------------------------------------


def test_a_small_run_learns(warm, tmp_path):
    """GiGPO on 16 fixed rooms, from a warm start that saw half of them, acting only."""
    settings = [
        *warm.settings,
        "env.settings.max_steps=8",
        "policy.tiny={hidden: 64, heads: 4, kv_heads: 4, ffn: 128, positions: 256}",
        "warmup={updates: 15, forward_modes: [action], forward_from: 0, forward_batch: 32, reflect_batch: 0, "
        "lr: 5e-3, lr_end: 1.0}",
        "method={name: gigpo, gamma: 0.5, omega: 1.0, normalize: mean, invalid_penalty: 0.1}",
        "train={groups: 16, group_size: 16, lr: 1e-3, lr_warmup: 3, epochs: 2, minibatches: 4, clip: 0.2, "
        "kl: {form: exact, coef: 0.01}, iterations: 20, validate_every: 0, record_every: 0, save_every: 20}",
    ]
    model = run_warmup(load_config(None, settings), warm.demos, tmp_path / "warm")
    config = load_config(None, [*settings, f"train.init={model}"])
    setup = set_up(config)
    requests = panel_requests(setup.panel("train").ids, 8)

    def success(policy: TransformersPolicy) -> float:
        actor = Actor(policy, setup.prompts, setup.action_sampling(1.0))
        context = setup.context(policy.codec)
        return success_rate(context.play(requests, actor, None, PlayOptions(("panel", 1))))

    before = success(load_policy(config.policy, model))
    run = run_training(config, tmp_path / "run")
    after = success(run.policy)
    assert 0.02 < before < 0.75
    assert after >= before + 0.2
    rows = metric_rows(tmp_path / "run")
    assert rows[-1]["rollout/success"] >= rows[0]["rollout/success"] + 0.2
    assert all(row["update/mismatch"] < 1e-4 for row in rows)
    assert all(row["update/skipped"] == 0 for row in rows)
    # what was saved is what was trained
    assert success(load_policy(config.policy, find_model(tmp_path / "run", "last"))) == after


# Every method -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_runs_and_logs_its_terms_apart(warm, tmp_path, name):
    settings = [
        *warm.settings,
        f"method={name}",
        f"train.init={warm.model}",
        "train.groups=4",
        "train.group_size=4",
        "train.minibatches=2",
        "train.iterations=1",
        "train.validate_every=0",
        "train.save_every=1",
    ]
    config = load_config(None, settings)
    method = config.method
    run = run_training(config, tmp_path)
    (row,) = metric_rows(tmp_path)
    assert {key for key in row if key.startswith("reward/")} == {f"reward/{term}" for term in TERMS}
    (file,) = (tmp_path / "trajectories").iterdir()
    records = list(read_trajectories(file))
    steps = [step for record in records for step in record["steps"]]
    assert len(records) == 16
    assert row["env_steps"] == len(steps) == run.env_steps

    def term(key: str) -> list[float]:
        return [step["terms"][key] for step in steps]

    for key in TERMS:
        assert row[f"reward/{key}"] == pytest.approx(sum(term(key)) / 16, abs=1e-9)
    assert term("env") == [step["env_reward"] for step in steps]
    assert row["reward/env"] == pytest.approx(10 * row["rollout/success"])
    weight = 1.0 if method.judge_gate == "none" else max(0.0, row.get("reflect/agreement", 1.0))
    assert any(term("shaping")) == (method.shaping != "none" and weight > 0)
    assert any(term("alignment")) == (method.alignment != "none")
    assert all(value <= 0 for key in ("alignment", "format", "boundary", "invalid") for value in term(key))
    assert sum(value != 0 for value in term("invalid")) == sum(not step["valid"] for step in steps) > 0
    broken = sum(bool(step["defects"]) for step in steps)
    assert sum(value != 0 for value in term("format")) == (broken if method.format_coef else 0)
    if not method.boundary_coef:
        assert not any(term("boundary"))
    # what was asked for while acting, and afterwards
    assert all(step["prompt"].endswith("progress" if method.progress else "act") for step in steps)
    assert ("rollout/online" in row) == method.progress
    assert ("reflect/valid" in row) == method.reflect
    groups = [records[first : first + 4] for first in range(0, 16, 4)]
    for group in groups:
        unread = method.judges_lost_only and any(record["won"] for record in group)
        judged = method.reflect and not unread
        assert all((record["reflection"] is not None) == judged for record in group)
    if method.reflect:
        assert row["reflect/valid"] > 0  # else retrospective shaping would be untested here
        reflections = [record["reflection"] for record in records if record["reflection"] is not None]
        assert any(reflection["advantage"] for reflection in reflections)
    if method.shaping == "oracle":
        for record in records:
            total = sum(step["terms"]["shaping"] for step in record["steps"])
            assert total == pytest.approx(method.beta * record["steps"][-1]["truth"])
    if method.shaping == "linear":
        for record in records:
            total = sum(step["terms"]["shaping"] for step in record["steps"])
            assert total == pytest.approx(method.beta * record["won"])
    if method.shaping == "retrospective":
        for record in records:
            total = sum(step["terms"]["shaping"] for step in record["steps"])
            values = record["reflection"]["values"]
            if values is None:
                assert total == 0
            elif record["won"] and method.anchor == "clip":
                assert total == pytest.approx(weight * method.beta)
            elif method.anchor == "clip":
                assert total == pytest.approx(weight * method.beta * min(values[-1] / 100, 0.99))
            else:
                assert total == pytest.approx(weight * method.beta * values[-1] / 100)
    assert row["update/mismatch"] < 1e-4
    assert row["update/grad_norm"] > 0
    assert (tmp_path / "checkpoints" / "00001" / "optimizer.safetensors").exists()


@pytest.mark.parametrize("where", ["action", "split"])
def test_credit_apart_for_progress_and_action(warm, tmp_path, where, monkeypatch):
    settings = [
        *warm.settings,
        f"method.advantage_on={where}",
        "method.reflect_share=0.5",
        f"train.init={warm.model}",
        "train.groups=4",
        "train.group_size=4",
        "train.iterations=1",
        "train.validate_every=0",
    ]
    trained: list[Sample] = []
    update = Updater.update

    def seen(updater: Updater, samples: list[Sample], **more: Any) -> dict[str, float]:
        trained.extend(samples)
        return update(updater, samples, **more)

    monkeypatch.setattr(Updater, "update", seen)
    run = run_training(load_config(None, settings), tmp_path)
    assert run.iteration == 1
    (row,) = metric_rows(tmp_path)
    assert row["update/grad_norm"] > 0
    assert row["reward/alignment"] < 0  # recorded, wherever it is credited
    acting = [s.advantage[s.kind == TokenKind.ACT] for s in trained if TokenKind.ACT in s.kind]
    apart = [values for values in acting if len(set(values.tolist())) > 1]  # progress and action
    assert apart
    # Alone, the action's tokens have an advantage; split, the report of progress has its own.
    assert all(0.0 in values for values in apart) == (where == "action")


# What stops a run ---------------------------------------------------------------------------------


def test_an_alarm_stops_the_run_and_keeps_the_checkpoint_before_it(warm, tmp_path):
    settings = [
        *warm.settings,
        *SMALL_RUN,
        f"train.init={warm.model}",
        "train.save_every=1",
        "train.validate_every=0",
        "eval.tasks=8",
        "alarms.min_entropy=50",
        "alarms.patience=2",
    ]
    texts: list[str] = []
    with pytest.raises(TrainingStopped, match=r"after iteration 2: update/entropy.*2 iterations in a row"):
        run_training(load_config(None, settings), tmp_path, on_text=texts.append)
    assert len(texts) == 2
    assert [row["iteration"] for row in metric_rows(tmp_path)] == [1, 2]
    assert find_model(tmp_path).name == "00001"


def test_what_would_fail_later_fails_at_once(warm, tmp_path):
    with pytest.raises(PreflightError, match=r"train\.init is not set"):
        RLRun(set_up(load_config(None, warm.settings)), tmp_path / "run")
    with pytest.raises(CheckpointError, match="No model folder at"):
        RLRun(set_up(load_config(None, [*warm.settings, "train.init=/no/such"])), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_env_steps_end_a_run(warm, tmp_path):
    settings = [*warm.settings, *SMALL_RUN, f"train.init={warm.model}", "train.validate_every=0"]
    settings.append("train.env_steps=1")
    texts: list[str] = []
    run = run_training(load_config(None, settings), tmp_path, on_text=texts.append)
    assert run.iteration == 1
    ended = f"Ended after iteration 1 of 6: train.env_steps=1 is reached ({run.env_steps} steps were played)."
    assert texts[-1] == ended
    run_training(load_config(None, settings), tmp_path, on_text=texts.append)
    assert texts.count(ended) == 1  # a repeated call does nothing
    assert list((tmp_path / "checkpoints").iterdir()) == [tmp_path / "checkpoints" / "00001"]
    with gzip.open(next((tmp_path / "trajectories").iterdir())) as handle:
        assert len(handle.readlines()) == 64
