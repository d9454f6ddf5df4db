"""The warmup as a whole."""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repro_rl.config import load_config
from repro_rl.policy.decoding.static.pool import StaticDecoders
from repro_rl.run.setup import set_up
from repro_rl.train import run_warmup, sft


def test_the_learning_rate_warms_up_and_falls_to_its_end() -> None:
    section = load_config(None, ["warmup={updates: 10, lr_warmup: 4, lr: 0.1, lr_end: 0.5}"]).warmup
    run: Any = SimpleNamespace(setup=SimpleNamespace(config=SimpleNamespace(warmup=section)))
    rates = []
    for run.iteration in (1, 4, 10):
        rates.append(sft.WarmupRun.learning_rate(run))
    assert rates == pytest.approx([0.025 * 0.95, 0.1 * 0.8, 0.05])


def test_warmup_learns_both_kinds(warm):
    assert [row["iteration"] for row in warm.rows] == list(range(1, 101))
    for name in ("warmup/forward_loss", "warmup/reflect_loss"):
        assert warm.rows[-1][name] < 0.3 * warm.rows[0][name]
        assert 3 < warm.rows[0][name] < 6  # untrained: about uniform over some 90 words, ln 90 = 4.5
    # The decisions are learnt too, from one of 20 words right by chance to most.
    assert warm.rows[0]["warmup/action_accuracy"] < 0.2
    assert warm.rows[-1]["warmup/action_accuracy"] > 0.4
    assert "warmup/held_out_loss" not in warm.rows[-1]  # nothing is held out


@pytest.mark.parametrize(("successes", "told"), [((0.0, 0.5, 0.0), []), ((0.0, 0.0, 0.0), ["all 3"])])
def test_a_warm_start_that_never_won_is_told_once_and_at_its_end(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, successes: tuple[float, ...], told: list[str]
) -> None:
    left = iter(successes)
    monkeypatch.setattr(sft.WarmupRun, "_validate", lambda run: next(left))
    settings = [
        *warm.settings,
        "warmup={updates: 3, forward_batch: 2, reflect_batch: 2, forward_from: 0, check_every: 1, "
        "target_success: 1.0}",
        "eval.validation_tasks=2",
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_warmup(load_config(None, settings), warm.demos, tmp_path / "warmup")
    found = [str(w.message) for w in caught if "never won" in str(w.message)]
    assert len(found) == len(told)
    assert all(text in message for text, message in zip(told, found, strict=True))


@pytest.mark.parametrize(
    ("updates", "forward_from", "forward_batch", "told"),
    [(3, 3, 2, True), (3, 2, 2, False), (3, 3, 0, False)],
)
def test_actions_that_no_update_teaches_are_told(
    warm: Any, tmp_path: Path, updates: int, forward_from: int, forward_batch: int, told: bool
) -> None:
    """Those of ``forward_batch`` join after ``forward_from``; with a batch of 0 they are not asked for."""
    section = f"{{updates: {updates}, forward_from: {forward_from}, forward_batch: {forward_batch}}}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with closing(set_up(load_config(None, [*warm.settings, f"warmup={section}"]))) as setup:
            sft.WarmupRun(setup, warm.demos, tmp_path / "warmup")
    found = [str(w.message) for w in caught if "No update teaches an action" in str(w.message)]
    assert len(found) == told
    assert all("warmup.forward_from=3" in message for message in found)


def test_what_a_validation_left_on_a_gpu_is_freed_before_an_update(warm, tmp_path, monkeypatch):
    freed = []
    monkeypatch.setattr(sft.WarmupRun, "_validate", lambda run: 0.5)
    monkeypatch.setattr(StaticDecoders, "free_for_update", lambda self: freed.append(self))
    more = [
        "warmup={updates: 2, forward_batch: 2, reflect_batch: 2, forward_from: 0, check_every: 1, "
        "target_success: 1.0}",
        "eval.validation_tasks=2",
    ]
    run_warmup(load_config(None, [*warm.settings, *more]), warm.demos, tmp_path / "warmup")
    assert len(freed) == 2


def test_the_optimizer_has_the_settings_of_the_warmup(warm, tmp_path):
    more = ["warmup.weight_decay=0.1", "warmup.lr=0.03", "train.weight_decay=0.2"]
    with closing(set_up(load_config(None, [*warm.settings, *more]))) as setup:
        run = sft.WarmupRun(setup, warm.demos, tmp_path / "warmup")
    assert {(group["weight_decay"], group["lr"]) for group in run.optimizer.param_groups} == {(0.1, 0.03)}
