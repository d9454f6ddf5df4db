"""check_env: silent on a good environment, one finding for each broken promise, never an exception."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from repro_rl.envs.checker import check_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.sokoban import SokobanEnv


def failing(env, **kwargs) -> dict[str, str]:
    return {check.name: check.detail for check in check_env(env, **kwargs) if not check.ok}


@pytest.mark.parametrize("style", ["relative", "grid", "coordinates"])
def test_sokoban_passes(style):
    checks = check_env(SokobanEnv(style=style), factory=lambda: SokobanEnv(style=style))
    assert [check.name for check in checks if not check.ok] == []
    assert len(checks) == 10
    assert all(check.detail for check in checks)


def test_without_a_factory_one_check_less():
    assert len(check_env(SokobanEnv(boxes=2), "validation", 3)) == 9


def test_another_instance_that_differs():
    detail = failing(SokobanEnv(), factory=lambda: SokobanEnv(seed=1))["fresh instance"]
    assert "digest" in detail
    assert (
        "another observation"
        in failing(SokobanEnv(), factory=lambda: SokobanEnv(style="grid"))["fresh instance"]
    )


class Changed(SokobanEnv):
    """Overrides info keys; ``...`` removes a key."""

    changes: dict[str, object] = {}  # noqa: RUF012

    def _info(self, valid, brief):
        info = super()._info(valid, brief)
        for key, value in self.changes.items():
            if value is ...:
                del info[key]
            else:
                info[key] = value
        return info


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task_id", "x"), ("goal", ""), ("admissible", "up"), ("anchor", []), ("valid", 1), ("won", None),
        ("score", 2.0), ("progress", "half"), ("progress", float("nan")), ("brief", 3), ("anchor", ...),
        ("progress", ...),
    ],
)  # fmt: skip
def test_wrong_info(key, value):
    env = Changed()
    env.changes = {key: value}
    named = f"info without {key!r}" if value is ... else f"info[{key!r}]"
    assert named in failing(env)["info"]


def test_what_rollouts_accept_is_accepted():
    env = Changed()
    for changes in ({"progress": None}, {"score": np.float32(0.5), "admissible": ("up", "down")}):
        env.changes = changes
        assert failing(env) == {}


def test_every_contract_violation_is_reported():
    class Random(SokobanEnv):
        counter = itertools.count()

        def step(self, action):
            observation, *rest = super().step(action)
            return f"{observation} {next(self.counter)}", *rest

    class Raising(SokobanEnv):
        def step(self, action):
            if action not in ("up", "down", "left", "right"):
                raise ValueError("what?")
            return super().step(action)

    class Generous(Changed):
        changes = {"valid": True}  # noqa: RUF012

    class Lost(SokobanEnv):
        def expert(self):
            return "up"

    class Silent(SokobanEnv):
        def expert(self):
            return None

    class Falling(SokobanEnv):
        def _progress(self):
            return 1.0 - super()._progress()

    class Endless(SokobanEnv):
        def step(self, action):
            observation, reward, terminated, _, info = super().step(action)
            self._over = False
            return observation, reward, terminated, False, info

    class Restless(Endless):
        def expert(self):
            return "up"

    class Drifting(SokobanEnv):
        counter = itertools.count()

        def panel(self, split):
            ids = super().panel(split).ids
            return TaskPanel("sokoban", split, ids, tuple(f"{next(self.counter)}" for _ in ids))

    class Trusting(SokobanEnv):
        def room(self, task_id):
            return super().room(task_id if "/" in task_id else self.panel("test").ids[0])

    assert "another observation" in failing(Random())["deterministic"]
    assert "ValueError" in failing(Raising())["bad actions"]
    assert "valid=True" in failing(Generous())["bad actions"]
    assert "without a win" in failing(Lost())["expert wins"]
    assert "no plan" in failing(Silent())["expert wins"]
    assert "falls" in failing(Falling())["progress"]
    assert "truncated=False at step 15" in failing(Endless())["truncation"]
    assert "did not end within 30 steps; max_steps is 15" in failing(Restless())["expert wins"]
    assert "digest" in failing(Drifting())["panel"]
    assert "unknown task is accepted" in failing(Trusting())["unknown names"]


def test_never_raises():
    class Hopeless(SokobanEnv):
        def panel(self, split):
            raise RuntimeError("no panel today")

    checks = check_env(Hopeless(), factory=lambda: 1 / 0)
    assert len(checks) == 10
    assert not any(check.ok for check in checks)
    assert all(
        "no panel today" in c.detail or "ZeroDivision" in c.detail
        for c in checks
        if c.name != "unknown names"
    )
    assert failing(SokobanEnv(test_rooms=0))["panel"] == "the panel of split 'test' is empty"


class Odd(SokobanEnv):
    """Its step returns what ``change`` makes of the right result."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def step(self, action):
        return self.change(super().step(action))


def _raise(result):
    raise ValueError("the door is stuck")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda result: result[:4], "step() must return (observation, reward, terminated, truncated, info)"),
        (lambda result: None, "not NoneType"),
        (lambda result: (*result[:4], None), "an info of NoneType; it must be a dict"),
        (lambda result: (*result[:4], {}), "an info without 'goal'"),
        (lambda result: ("wall \ud83e", *result[1:]), "a lone surrogate '\\ud83e' at position 5"),
        (_raise, "raised ValueError: the door is stuck (test_checker.py, line "),
    ],
)  # fmt: skip
def test_every_check_says_what_step_does_wrong(change, words):
    found = failing(Odd(change), factory=lambda: Odd(change))
    for name in ("info", "deterministic", "fresh instance", "bad actions", "expert wins", "truncation"):
        assert words in found[name], name
