"""A check of somebody else's code always ends in a result."""

from __future__ import annotations

import pytest

from repro_rl.envs.checks import Check, Doubt, FailedCheck, guarded
from repro_rl.errors import ConfigError, EnvError


def raising(error: Exception) -> str:
    raise error


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (FailedCheck("no goal"), Check("x", False, "no goal")),
        (Doubt("one anchor"), Check("x", True, "one anchor", doubt=True)),
        (EnvError("it broke"), Check("x", False, "it broke")),
    ],
)
def test_what_a_check_says_becomes_its_result(error: Exception, result: Check) -> None:
    assert guarded("x", lambda: raising(error)) == result


def test_a_check_that_returns_is_passed() -> None:
    assert guarded("x", lambda: "3 tasks") == Check("x", True, "3 tasks")


def test_other_errors_are_named_with_their_place() -> None:
    found = guarded("x", lambda: raising(KeyError("a")))
    assert not found.ok
    assert found.detail.startswith("raised KeyError: 'a' (test_checks.py, line ")
    assert "raised ConfigError: wrong (" in guarded("x", lambda: raising(ConfigError("wrong"))).detail
    assert guarded("x", lambda: raising(ConfigError("wrong")), ConfigError).detail == "wrong"
