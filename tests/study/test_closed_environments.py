"""Environments are closed by whoever made their pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_rl.cli.stages import run_demos_stage
from repro_rl.config import load_config
from repro_rl.envs import SokobanEnv
from repro_rl.rollout import EnvPool, env_pool
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.study.pilot import open_pilot
from repro_rl.train import run_training, run_warmup
from support.episodes import SOKOBAN

SHORT = [
    *("train.groups=2", "train.group_size=2", "train.minibatches=1", "train.epochs=1", "train.iterations=1"),
    *("demos.expert=1", "demos.winning=1", "demos.failing=1"),
    "warmup={updates: 1, forward_batch: 2, reflect_batch: 2, forward_from: 0}",
    *("eval.tasks=2", "eval.validation_tasks=2"),
]


@pytest.fixture
def still_open(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The environments that pools have built and not closed."""
    found: list[Any] = []
    make = env_pool.make

    def counted(name: str, **settings: Any) -> Any:
        env = make(name, **settings)
        found.append(env)
        return env

    monkeypatch.setattr(env_pool, "make", counted)
    monkeypatch.setattr(SokobanEnv, "close", lambda env: found.remove(env))
    return found


def test_a_pool_closes_all_and_can_be_used_again(still_open: list[Any]) -> None:
    pool = EnvPool("sokoban", SOKOBAN)
    first = pool.take(3)[0]
    assert len(still_open) == 3
    pool.close()
    pool.close()
    assert still_open == []
    assert pool.first is not first
    assert len(still_open) == 1


def test_an_environment_that_fails_in_close_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def close(env: Any) -> None:
        closed.append(env)
        raise OSError("its process is gone")

    monkeypatch.setattr(SokobanEnv, "close", close)
    pool = EnvPool("sokoban", SOKOBAN)
    envs = list(pool.take(2))
    with pytest.warns(UserWarning, match=r"Closing an environment 'sokoban' failed: .*its process is gone"):
        pool.close()
    assert closed == envs


@pytest.mark.parametrize(
    "command",
    [
        lambda warm, config, out: run_training(config, out),
        lambda warm, config, out: run_warmup(config, warm.demos, out),
        lambda warm, config, out: evaluate(config, warm.model, EvalRequest("x")),
        lambda warm, config, out: open_pilot(config, out, "agent"),
        lambda warm, config, out: run_demos_stage(config, out),
    ],
    ids=["train", "warmup", "eval", "pilot", "demos"],
)
def test_a_command_leaves_no_environment_open(
    warm: Any,
    tmp_path: Path,
    still_open: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., Any],
) -> None:
    config = load_config(None, [*warm.settings, *SHORT, f"train.init={warm.model}"])
    take, most = EnvPool.take, [0]

    def counted(pool: EnvPool, count: int) -> list[Any]:
        most.append(max(most[-1], count))
        return take(pool, count)

    monkeypatch.setattr(EnvPool, "take", counted)
    command(warm, config, tmp_path / "out")
    assert most[-1] > 0  # it has built some
    assert still_open == []
