"""What a checkpoint holds of a run, as files of earlier versions have it."""

from __future__ import annotations

from typing import Any

import pytest

from repro_rl.train.state import RLState, WarmupState

RL = {
    "iteration": 3,
    "env_steps": 40,
    "seconds": 1.5,
    "best_success": 0.5,
    "best_iteration": 2,
    "alarms": {"skipped": 1, "update/kl": 0},
    "context": "window",
}
WARMUP = {"stopped": True, "context": "chat"}


@pytest.mark.parametrize(
    "more", [{}, {"row": {"iteration": 3}}, {"best_success": None, "best_iteration": None}]
)
def test_an_rl_run_reads_and_writes_the_same_record(more: dict[str, Any]) -> None:
    saved = RL | more
    state = RLState.from_json(3, saved)
    assert list(state.as_json("window").items()) == list(saved.items())
    assert (state.iteration, state.env_steps, state.streaks) == (3, 40, RL["alarms"])
    assert state.best == ((0.5, 2) if saved["best_iteration"] else None)


@pytest.mark.parametrize("more", [{}, {"row": {"iteration": 7}}, {"row": {"iteration": 7}, "skipped": 2}])
def test_a_warmup_reads_and_writes_the_same_record(more: dict[str, Any]) -> None:
    saved = WARMUP | more
    state = WarmupState.from_json(7, saved)
    assert list(state.as_json("chat").items()) == list(saved.items())
    assert (state.iteration, state.stopped, state.skipped) == (7, True, more.get("skipped", 0))


def test_a_new_run_has_done_nothing() -> None:
    assert RLState().as_json("window")["best_iteration"] is None
    assert WarmupState().as_json("window") == {"stopped": False, "context": "window"}
