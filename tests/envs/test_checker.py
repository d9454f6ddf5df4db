"""check_env: silent on a good environment, one finding for each broken promise, never an exception."""

from __future__ import annotations

import itertools

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
        ("task_id", "x"), ("goal", ""), ("admissible", ("up",)), ("anchor", []), ("valid", 1), ("won", None),
        ("score", 2.0), ("progress", "half"), ("progress", float("nan")), ("brief", 3), ("anchor", ...),
        ("progress", ...),
    ],
)  # fmt: skip
def test_wrong_info(key, value):
    env = Changed()
    env.changes = {key: value}
    assert f"info[{key!r}]" in failing(env)["info"]


def test_unknown_progress_is_tolerated():
    env = Changed()
    env.changes = {"progress": None}
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
