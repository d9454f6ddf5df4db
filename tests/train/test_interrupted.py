"""Training and warmup that are interrupted: the last finished iteration or update is saved."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from repro_rl.config import RunConfig, load_config
from repro_rl.errors import NonFiniteError, PreflightError
from repro_rl.files import LOCK_FILE, only_writer
from repro_rl.interrupts import Interrupted, handled
from repro_rl.run.folder import MetricsLog
from repro_rl.train import RLRun, checkpointed, run_training, run_warmup, sft, update
from repro_rl.train.step import apply_gradients
from repro_rl.train.update import Updater

# Only the last iteration, or the last update, is saved where nothing interrupts.
RUN = [
    *("train.groups=2", "train.group_size=2", "train.minibatches=1", "train.epochs=1", "train.iterations=3"),
    *("train.save_every=9", "train.validate_every=2", "train.record_every=1", "eval.validation_tasks=2"),
]
WARMUP = [
    "warmup={updates: 3, forward_batch: 2, reflect_batch: 2, forward_from: 0, save_every: 9, "
    "check_every: 2, target_success: 1.0}",
    "eval.validation_tasks=2",
]
TINIER = (
    "policy={model: tiny, device: cpu, tiny: {hidden: 16, heads: 2, kv_heads: 2, ffn: 32, positions: 256}}"
)


def settings(warm: Any, *more: str) -> RunConfig:
    return load_config(None, [*warm.settings, *RUN, f"train.init={warm.model}", *more])


def rows(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "seconds" and not k.startswith("time/")} for r in found]


@pytest.fixture(scope="module")
def whole(warm: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same run without an interruption."""
    run = run_training(settings(warm), tmp_path_factory.mktemp("whole") / "run")
    assert {path.name for path in (run.out / "checkpoints").iterdir()} == {"00002", "00003"}
    return run


def in_call(owner: Any, name: str, number: int, stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``stop()`` happen at the start of the ``number``-th call of a method."""
    original, calls = getattr(owner, name), []

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            stop()
        return original(*args, **more)

    monkeypatch.setattr(owner, name, counted)


def interrupt() -> None:
    signal.raise_signal(signal.SIGTERM)


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")


@pytest.mark.parametrize(
    ("owner", "name", "saved"),
    [
        (RLRun, "rollout", 1),  # the second iteration is not finished
        (Updater, "update", 1),  # the first one is finished first
        (RLRun, "validate", 2),  # the second one is finished, its row is not
        (MetricsLog, "add", 1),
        (RLRun, "save", 2),
    ],
)
def test_training_goes_on_where_it_was(
    warm: Any, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, saved: int
) -> None:
    number = 2 if name == "rollout" else 1
    with monkeypatch.context() as patch:
        in_call(owner, name, number, interrupt, patch)
        with pytest.raises(Interrupted), handled():
            run_training(settings(warm), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"{saved:05d}"]
    seen: list[int] = []
    run = run_training(settings(warm), tmp_path / "run", lambda row: seen.append(row["iteration"]))
    assert_same(run, whole)
    assert seen[-1] == 3


@pytest.mark.parametrize(("owner", "name", "saved"), [(MetricsLog, "add", 1), (RLRun, "validate", 2)])
def test_a_full_disk_loses_no_iteration(
    warm: Any, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, saved: int
) -> None:
    with monkeypatch.context() as patch:
        in_call(owner, name, 1, full, patch)
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            run_training(settings(warm), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"{saved:05d}"]
    assert_same(run_training(settings(warm), tmp_path / "run"), whole)


def test_what_cannot_be_saved_is_said(warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        full()

    texts: list[str] = []
    monkeypatch.setattr(checkpointed, "save_checkpoint", fail)
    in_call(RLRun, "rollout", 2, full, monkeypatch)
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        run_training(settings(warm), tmp_path / "run", on_text=texts.append)
    assert texts == [
        "The weights after iteration 1 could not be saved: No space left on device. The command, repeated, "
        "continues from the checkpoint before."
    ]


def broken() -> None:
    raise KeyError("no such anchor")


@pytest.mark.parametrize(
    ("owner", "name", "number", "saved"),
    [
        (RLRun, "credit", 2, 1),  # as of a credit rule of one's own
        (RLRun, "_update", 2, 1),
        (Updater, "_step", 2, 1),  # as of a loss of one's own, or for want of memory
        (RLRun, "validate", 1, 2),
    ],
)
def test_code_that_fails_loses_no_iteration(
    warm: Any,
    whole: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    number: int,
    saved: int,
) -> None:
    texts: list[str] = []
    with monkeypatch.context() as patch:
        in_call(owner, name, number, broken, patch)
        with pytest.raises(KeyError, match="no such anchor"):
            run_training(settings(warm), tmp_path / "run", on_text=texts.append)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"{saved:05d}"]
    assert texts == [f"Saved after iteration {saved}: the command, repeated, continues there."]
    assert_same(run_training(settings(warm), tmp_path / "run"), whole)


def test_weights_that_are_not_finite_are_not_saved(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collapsed() -> None:
        raise NonFiniteError("NaN")

    in_call(RLRun, "rollout", 2, collapsed, monkeypatch)
    with pytest.raises(NonFiniteError):
        run_training(settings(warm), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def assert_same(run: RLRun, whole: RLRun) -> None:
    assert rows(run.out) == rows(whole.out)
    left, right = whole.policy.model.state_dict(), run.policy.model.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert run.best == whole.best
    assert "row" not in json.loads((run.out / "checkpoints" / "00003" / "state.json").read_text())
    for path in (whole.out / "trajectories").iterdir():
        assert (run.out / "trajectories" / path.name).read_bytes() == path.read_bytes()


def test_weights_in_the_middle_of_an_update_are_not_saved(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(module: Any) -> None:  # a second Ctrl-C, which does not wait, behind the second step
        steps = []

        def stepped(*args: Any, **more: Any) -> Any:
            steps.append(apply_gradients(*args, **more))
            if len(steps) == 2:
                raise KeyboardInterrupt
            return steps[-1]

        monkeypatch.setattr(module, "apply_gradients", stepped)

    again(update)  # the first iteration is finished, and not yet saved
    with pytest.raises(KeyboardInterrupt):
        run_training(settings(warm), tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()
    again(sft)
    with pytest.raises(KeyboardInterrupt):
        run_warmup(load_config(None, [*warm.settings, *WARMUP]), warm.demos, tmp_path / "warm")
    assert not (tmp_path / "warm" / "checkpoints").exists()


def test_a_second_training_of_a_folder_is_refused(warm: Any, tmp_path: Path) -> None:
    with only_writer(tmp_path / LOCK_FILE, "training"):
        for start in (
            lambda: run_training(settings(warm), tmp_path),
            lambda: run_warmup(settings(warm), warm.demos, tmp_path),
        ):
            with pytest.raises(PreflightError, match=r"Another training .process id"):
                start()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("owner", "name", "number", "saved"),
    [
        (sft.WarmupRun, "_step", 2, 2),  # finished first
        (sft.WarmupRun, "_validate", 1, 2),
        (MetricsLog, "add", 1, 1),
        (sft.WarmupRun, "_rows", 3, 2),  # fails in the third update, before its step
    ],
)
def test_a_warmup_goes_on_where_it_was(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, saved: int
) -> None:
    config = load_config(None, [*warm.settings, *WARMUP])
    model = run_warmup(config, warm.demos, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop, error = (broken, KeyError) if name == "_rows" else (interrupt, Interrupted)
        in_call(owner, name, number, stop, patch)
        with pytest.raises(error), handled():
            run_warmup(config, warm.demos, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"{saved:05d}"]
    texts: list[str] = []
    again = run_warmup(config, warm.demos, tmp_path / "run", on_text=texts.append)
    assert texts == [f"Continuing {tmp_path / 'run'} after update {saved}."]
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    weights = "model.safetensors"
    assert (again / weights).read_bytes() == (model / weights).read_bytes()


def test_a_corrected_warmup_is_accepted(warm: Any, tmp_path: Path) -> None:
    """The first start fails after the tiny model was built; the second has another size."""
    wrong = load_config(None, [*warm.settings, *WARMUP, "prompt.action_tokens=1"])
    right = load_config(None, [*warm.settings, *WARMUP, TINIER])
    with pytest.raises(PreflightError, match="action_tokens"):
        run_warmup(wrong, warm.demos, tmp_path)
    assert (tmp_path / "initial").exists()
    run_warmup(right, warm.demos, tmp_path)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["hidden_size"] == 16
