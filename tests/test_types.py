"""The records: how an episode ended, and what a token is trained as."""

from __future__ import annotations

import numpy as np
import pytest

from repro_rl.types import Completion, Reflection, Sample, Status, TokenKind, Trajectory, no_completion
from support.credit_cases import episode, step


@pytest.mark.parametrize(
    ("status", "failed", "truncated"),
    [
        (Status.RUNNING, False, False),
        (Status.TERMINATED, False, False),
        (Status.TRUNCATED, False, True),
        (Status.CONTEXT_FULL, False, True),
        (Status.FAILED, True, False),
    ],
)
def test_status(status: Status, failed: bool, truncated: bool) -> None:
    trajectory = Trajectory("task", 0, "goal", [], False, 0.0, status)
    assert (trajectory.failed, trajectory.truncated) == (failed, truncated)
    assert Status(str(status)) is status  # as records write it


def test_an_episode_starts_running_and_may_fail() -> None:
    trajectory = Trajectory("task", 0, "goal", [step(1, reward=2.0), step(2, reward=-0.5)], False, 0.0)
    assert (trajectory.status, trajectory.error, trajectory.length) == (Status.RUNNING, None, 2)
    assert trajectory.env_return == 1.5
    trajectory.fail("the server is gone")
    assert (trajectory.failed, trajectory.truncated) == (True, False)
    assert trajectory.error == "the server is gone"
    assert trajectory.length == 2  # what was played stays


def test_a_failure_replaces_how_the_episode_ended() -> None:
    trajectory = episode([step(1)], won=True)
    assert trajectory.status is Status.TERMINATED
    trajectory.fail("no reflection")
    assert trajectory.failed


@pytest.mark.parametrize(
    ("values", "judged"), [(None, None), ((10, 90), (10, 90)), ((90,), None), ((1, 2, 3), None)]
)
def test_an_episode_is_judged_when_its_reflection_has_a_value_for_each_step(
    values: tuple[int, ...] | None, judged: tuple[int, ...] | None
) -> None:
    trajectory = episode([step(1), step(2)], won=True)
    trajectory.reflection = None
    assert trajectory.judged is None
    trajectory.reflection = Reflection("prompt", no_completion(), values, ())
    assert trajectory.judged == judged


def test_what_a_token_is_trained_as() -> None:
    kind = np.array([TokenKind.CONTEXT, TokenKind.ACT, TokenKind.REFLECT, TokenKind.CONTEXT], dtype=np.int8)
    zeros = np.zeros(4, dtype=np.float32)
    sample = Sample(np.arange(4), kind, zeros, zeros, group=0)
    assert sample.trained.tolist() == [False, True, True, False]
    assert sample.trained.dtype == np.bool_


def test_tokens_of_a_completion() -> None:
    logprobs = np.zeros(2, dtype=np.float32)
    completion = Completion((1, 2, 3), (4, 5), logprobs, "up", True)
    assert (completion.prompt_tokens, completion.tokens) == (3, 2)
    counted = Completion((), (), np.zeros(0, dtype=np.float32), "up", True, counted=(30, 7))
    assert (counted.prompt_tokens, counted.tokens) == (30, 7)
    assert (no_completion().prompt_tokens, no_completion().tokens) == (0, 0)
    assert no_completion().finished


def test_records_do_not_share_their_terms() -> None:
    first, second = step(1), step(2)
    first.terms["env"] = 1.0
    assert second.terms == {}
