"""``check_env`` tests an environment against the contract of ``base.py``; the ``doctor`` command uses it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from repro_rl.envs.base import TextEnv, filled, has_tasks
from repro_rl.envs.contract import checked_reset, checked_step, is_bool, is_fraction, is_number, overdue
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import EnvError, TaskError, place_of

BAD_ACTIONS: tuple[str, ...] = ("", "   ", "x" * 10_000, "\x00\x07\x1b[31m\r\n\t", "🧱📦🎯", "{}[]()<action>")
_STEPS = 12  # most steps of an episode that is compared


@dataclass(slots=True, frozen=True)
class Check:
    """The result of one check. ``detail``: a count when ok; else what is wrong, with task and step."""

    name: str
    ok: bool
    detail: str


class _ContractError(Exception):
    """The environment breaks the contract; the message becomes the detail of the check."""


def check_env(
    env: TextEnv, split: str = "test", tasks: int = 5, factory: Callable[[], TextEnv] | None = None
) -> list[Check]:
    """Check ``env`` on the first ``tasks`` tasks of ``split``.

    ``factory`` builds a fresh instance with the same settings; with it, panels and observations are compared
    across instances. Never raises: every problem, exceptions included, is a Check with ``ok=False``.
    """
    run = _Run(env, split, tasks, factory)
    checks = [
        ("panel", run.panel),
        ("reset and step", run.shapes),
        ("info", run.info),
        ("deterministic", run.deterministic),
        ("bad actions", run.bad_actions),
        ("unknown names", run.unknown_names),
        ("expert wins", run.expert_wins),
        ("progress", run.progress),
        ("truncation", run.truncation),
    ]
    if factory is not None:
        checks.insert(4, ("fresh instance", run.fresh_instance))
    return [_guarded(name, check) for name, check in checks]


SPLITS = ("test", "validation", "train", "all")  # in the order in which one is chosen


def first_split(env: TextEnv) -> str:
    """The first of ``SPLITS`` in which the environment has tasks; "test" where it has none of them."""
    return next((split for split in SPLITS if has_tasks(env, split)), SPLITS[0])


def _guarded(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (_ContractError, EnvError) as error:
        return Check(name, False, str(error))
    except Exception as error:  # the environment under test may raise anything
        return Check(name, False, f"raised {type(error).__name__}: {error}{place_of(error)}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise _ContractError(message)


def _info_problem(info: Any, task: str) -> str | None:
    """The first thing wrong with an info dict, or None."""
    if not isinstance(info, dict):
        return f"info is {type(info).__name__}, not dict"
    admissible = info.get("admissible")
    progress = info.get("progress", math.nan)
    tests: tuple[tuple[str, bool, str], ...] = (
        ("task_id", info.get("task_id") == task, f"the task asked for ({task!r})"),
        ("goal", isinstance(info.get("goal"), str) and bool(info["goal"].strip()), "a sentence"),
        (
            "admissible",
            isinstance(admissible, list | tuple) and all(isinstance(a, str) for a in admissible),
            "a list of str",
        ),
        ("anchor", "anchor" in info and isinstance(info["anchor"], Hashable), "hashable"),
        ("valid", is_bool(info.get("valid")), "bool"),
        ("won", is_bool(info.get("won")), "bool"),
        ("score", _within(info.get("score")), "a number within 0..1"),
        ("progress", progress is None or _within(progress), "None or a number within 0..1"),
        ("brief", isinstance(info.get("brief", ""), str), "str"),
    )
    for key, ok, expected in tests:
        if not ok:
            actual = repr(info[key])[:80] if key in info else "missing"
            return f"info[{key!r}] is {actual}; it must be {expected}"
    return None


def _within(value: Any) -> bool:
    return is_fraction(value) and not is_bool(value)


class _Run:
    """The checks of one call. Each method returns its detail, or raises _ContractError or what the
    environment raises."""

    def __init__(self, env: TextEnv, split: str, tasks: int, factory: Callable[[], TextEnv] | None) -> None:
        self.env, self.split, self.count, self.factory = env, split, tasks, factory
        self._ids: tuple[str, ...] | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        if self._ids is None:
            self._ids = self.env.panel(self.split).ids[: self.count]
            _require(bool(self._ids), f"the panel of split {self.split!r} is empty")
        return self._ids

    def panel(self) -> str:
        first, second = self.env.panel(self.split), self.env.panel(self.split)
        _require(isinstance(first, TaskPanel), f"panel({self.split!r}) is no TaskPanel")
        _require(len(first) > 0, f"the panel of split {self.split!r} is empty")
        _require(len(set(first.ids)) == len(first), "the panel names a task twice")
        _require(first.digest == second.digest, "two calls of panel() differ in their digest")
        return first.label()

    def shapes(self) -> str:
        result = self.env.reset(options={"task": self.ids[0]})
        _require(isinstance(result, tuple) and len(result) == 2, "reset must return (observation, info)")
        observation, info = result
        _require(isinstance(observation, str) and bool(observation), "the first observation is no text")
        step = self.env.step(_pick(info["admissible"], 0))
        _require(isinstance(step, tuple) and len(step) == 5, "step must return 5 values")
        _require(isinstance(step[0], str), f"the observation of step is {type(step[0]).__name__}, not str")
        _require(is_number(step[1]), f"reward {step[1]!r} is no number")
        _require(is_bool(step[2]) and is_bool(step[3]), "terminated, truncated must be bool")
        return f"max_steps {self.env.max_steps}"

    def info(self) -> str:
        count = 0
        for task in self.ids:
            for number, (_, _, info) in enumerate(self._walk(self.env, task)):
                problem = _info_problem(info, task)
                _require(problem is None, f"task {task}, step {number}: {problem}")
                _require(number > 0 or info["valid"], f"task {task}: valid must be True after reset")
                count += 1
        return f"{count} info dicts of {len(self.ids)} tasks"

    def deterministic(self) -> str:
        return self._compare(self.env)

    def fresh_instance(self) -> str:
        assert self.factory is not None
        other = self.factory()
        digest, fresh = self.env.panel(self.split).digest, other.panel(self.split).digest
        _require(digest == fresh, f"panel digest {digest[:12]} here, {fresh[:12]} in a fresh instance")
        return self._compare(other)

    def _compare(self, other: TextEnv) -> str:
        """The same actions must give the same episodes in both environments."""
        steps = 0
        for task in self.ids:
            first, second = self._walk(self.env, task), self._walk(other, task)
            for number, (one, two) in enumerate(zip(first, second, strict=False)):
                for label, a, b in zip(("observation", "outcome", "info"), one, two, strict=True):
                    _require(a == b, f"task {task}, step {number}: same actions, another {label}")
            _require(len(first) == len(second), f"task {task}: same actions, episodes of different length")
            steps += len(first) - 1
        return f"{steps} steps of {len(self.ids)} tasks alike"

    def bad_actions(self) -> str:
        for action in BAD_ACTIONS:
            label = repr(action if len(action) < 30 else action[:10] + "...")
            self.env.reset(options={"task": self.ids[0]})
            try:
                returned = self.env.step(action)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}{place_of(error)}"
                raise _ContractError(f"action {label} raised {reason}") from error
            *_, info = checked_step(returned)
            _require(info["valid"] is False, f"action {label} gives valid={info['valid']!r}, not False")
        return f"{len(BAD_ACTIONS)} bad actions give valid=False"

    def unknown_names(self) -> str:
        for label, call in (
            ("an unknown split", lambda: self.env.panel("no such split")),
            ("an unknown task", lambda: self.env.reset(options={"task": "no such task"})),
        ):
            try:
                call()
            except TaskError:
                continue
            except Exception as error:
                raise _ContractError(f"{label} raises {type(error).__name__}, not TaskError") from error
            raise _ContractError(f"{label} is accepted; it must raise TaskError")
        return "TaskError for an unknown split and an unknown task"

    def expert_wins(self) -> str:
        lengths, without_plan = [], 0
        for task in self.ids:
            trace = self._expert(task)
            if trace is None:
                without_plan += 1
                continue
            progress, won = trace
            _require(
                won, f"task {task}: the expert's plan ends after {len(progress) - 1} steps without a win"
            )
            lengths.append(len(progress) - 1)
        _require(bool(lengths), f"expert() has no plan for any of {len(self.ids)} tasks")
        without = f", no plan for {without_plan}" if without_plan else ""
        return f"{len(lengths)} of {len(self.ids)} won in {min(lengths)} to {max(lengths)} steps{without}"

    def progress(self) -> str:
        tasks = 0  # with known progress
        for task in self.ids:
            trace = self._expert(task)
            values = [value for value in trace[0] if value is not None] if trace else []
            for before, after in itertools.pairwise(values):
                _require(
                    after >= before - 1e-9,
                    f"task {task}: progress falls from {before:.3f} to {after:.3f} on the expert's path",
                )
            if trace and trace[1] and trace[0][-1] is not None:
                _require(
                    abs(trace[0][-1] - 1) < 1e-9, f"task {task}: progress {trace[0][-1]} when won, not 1"
                )
            tasks += bool(values)
        return f"known for {tasks} of {len(self.ids)} tasks, rising to 1 on the expert's path"

    def truncation(self) -> str:
        limit = self.env.max_steps
        _require(limit > 0, f"max_steps is {limit}; it must be the step limit")
        self.env.reset(options={"task": self.ids[0]})
        for step in range(1, limit + 1):
            _, _, terminated, truncated, _ = checked_step(self.env.step(""))
            _require(not terminated, f"step {step} of empty actions ends the episode as terminated")
            _require(truncated == (step == limit), f"truncated={truncated} at step {step}, limit {limit}")
        return f"at step {limit}"

    def _walk(self, env: TextEnv, task: str) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        """Reset and up to _STEPS admissible steps, as (observation, (reward, terminated, truncated),
        info)."""
        observation, info = checked_reset(env.reset(options={"task": task}))
        trace: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [(observation, (), dict(info))]
        for number in range(_STEPS):
            action = _pick(info["admissible"], number)
            observation, reward, terminated, truncated, info = checked_step(env.step(action))
            trace.append((observation, (reward, terminated, truncated), dict(info)))
            if terminated or truncated:
                break
        return trace

    def _expert(self, task: str) -> tuple[list[float | None], bool] | None:
        """Progress of every state on the expert's path (start included) and whether it won; None = no
        plan."""
        _, info = checked_reset(self.env.reset(options={"task": task}))
        action = self.env.expert()
        if action is None:
            return None
        values = [info["progress"]]
        while action is not None:
            _, _, terminated, truncated, info = checked_step(self.env.step(action))
            values.append(info["progress"])
            if terminated or truncated:
                break
            late = overdue(self.env.max_steps, len(values) - 1)
            _require(late is None, f"task {task}, played by the expert: {late}")
            action = self.env.expert()
        return values, info["won"]


def _pick(admissible: list[str], number: int) -> str:
    """A deterministic, varied choice; placeholders such as ``<your query>`` are filled in."""
    if not admissible:
        return ""
    return filled(admissible[(number * 7 + 3) % len(admissible)], "test")
