"""``check_env`` tests an environment against the contract of ``base.py``; the ``doctor`` command uses it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from repro_rl.envs import meaning
from repro_rl.envs.answers import read_back
from repro_rl.envs.base import TextEnv, filled, has_tasks
from repro_rl.envs.checks import Check, Doubt, FailedCheck, guarded
from repro_rl.envs.contract import (
    KEYS,
    Demand,
    checked_reset,
    checked_step,
    is_bool,
    is_number,
    missing_keys,
    overdue,
    wrong_values,
)
from repro_rl.envs.meaning import Seen
from repro_rl.envs.overlap import shared_tasks
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import TaskError, place_of

BAD_ACTIONS: tuple[str, ...] = ("", "   ", "x" * 10_000, "\x00\x07\x1b[31m\r\n\t", "🧱📦🎯", "{}[]()<action>")
_STEPS = 12  # most steps of an episode that is compared


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
        ("splits", run.splits),
        ("reset and step", run.shapes),
        ("info", run.info),
        ("deterministic", run.deterministic),
        *([("fresh instance", run.fresh_instance)] if factory is not None else []),
        ("admissible", run.admissible),
        ("answers", run.answers),
        ("bad actions", run.bad_actions),
        ("unknown names", run.unknown_names),
        ("expert wins", run.expert_wins),
        ("reader", run.reader),
        ("rewards", run.rewards),
        ("progress", run.progress),
        ("anchors", run.anchors),
        ("words", run.words),
        ("truncation", run.truncation),
    ]
    return [guarded(name, check) for name, check in checks]


SPLITS = ("test", "validation", "train", "all")  # in the order in which one is chosen


def first_split(env: TextEnv) -> str:
    """The first of ``SPLITS`` in which the environment has tasks; "test" where it has none of them."""
    return next((split for split in SPLITS if has_tasks(env, split)), SPLITS[0])


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise FailedCheck(message)


def _beyond_contract(info: dict[str, Any], task: str) -> str:
    """What is wrong with an ``info`` that rollouts would take, for a sentence; "" for nothing."""
    no_bool = Demand("a number, not True or False", lambda value: not is_bool(value))
    return wrong_values(
        {"task_id": None, **info},
        {
            "task_id": Demand(f"the task asked for ({task!r})", lambda value: bool(value == task)),
            "goal": Demand("a sentence", lambda value: bool(value.strip())),
            "admissible": Demand("a list or a tuple", lambda value: isinstance(value, list | tuple)),
            "score": no_bool,
            "progress": no_bool,
            "brief": Demand("text", lambda value: isinstance(value, str)),
        },
    )


class _Run:
    """The checks of one call. Each method returns its detail, or raises FailedCheck or what the
    environment raises."""

    def __init__(self, env: TextEnv, split: str, tasks: int, factory: Callable[[], TextEnv] | None) -> None:
        self.env, self.split, self.count, self.factory = env, split, tasks, factory
        self._ids: tuple[str, ...] | None = None
        self._experts: dict[str, list[Seen]] = {}  # task -> the expert's episode; empty: no plan
        self._idling: list[Seen] = []

    @property
    def ids(self) -> tuple[str, ...]:
        if self._ids is None:
            self._ids = self.env.panel(self.split).ids[: self.count]
            _require(bool(self._ids), f"the panel of split {self.split!r} is empty")
        return self._ids

    def panel(self) -> str:
        first, second = self.env.panel(self.split), self.env.panel(self.split)
        _require(isinstance(first, TaskPanel), f"panel({self.split!r}) is no TaskPanel")
        _require(
            first.split == self.split,
            f"panel({self.split!r}) says that its split is {first.split!r}; give TaskPanel the one asked for",
        )
        _require(len(first) > 0, f"the panel of split {self.split!r} is empty")
        _require(len(set(first.ids)) == len(first), "the panel names a task twice")
        _require(first.digest == second.digest, "two calls of panel() differ in their digest")
        return first.label()

    def splits(self) -> str:
        env, split = self.env, self.split
        _require(bool(self.ids), "there is no task")
        if split == SPLITS[-1]:
            return f"the split {split!r} holds the tasks of all others"
        others = [env.panel(other) for other in SPLITS[:-1] if other != split and has_tasks(env, other)]
        return shared_tasks(env.panel(split), others, lambda task: _reset(env, task), self.count)

    def shapes(self) -> str:
        result = self.env.reset(options={"task": self.ids[0]})
        _require(isinstance(result, tuple) and len(result) == 2, "reset must return (observation, info)")
        observation = result[0]
        _require(isinstance(observation, str) and bool(observation), "the first observation is no text")
        step = self.env.step(_pick(checked_reset(result)[1]["admissible"], 0))
        _require(isinstance(step, tuple) and len(step) == 5, "step must return 5 values")
        _require(isinstance(step[0], str), f"the observation of step is {type(step[0]).__name__}, not str")
        _require(is_number(step[1]), f"reward {step[1]!r} is no number")
        _require(is_bool(step[2]) and is_bool(step[3]), "terminated, truncated must be bool")
        return f"max_steps {self.env.max_steps}"

    def info(self) -> str:
        count = 0
        match self.env.reset(options={"task": self.ids[0]}):
            case (_, dict() as info):  # others: see _walk
                lacking = missing_keys(info, ("task_id", *KEYS))
                _require(not lacking, f"reset() returned an info without {lacking}")
        for task in self.ids:
            for number, seen in enumerate(self._walk(self.env, task)):
                wrong = _beyond_contract(seen.info, task)  # _walk has tested the rest
                _require(not wrong, f"task {task}, step {number}: {wrong}")
                _require(number > 0 or seen.info["valid"], f"task {task}: valid must be True after reset")
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
                for label in ("observation", "outcome", "info"):
                    alike = getattr(one, label) == getattr(two, label)
                    _require(alike, f"task {task}, step {number}: same actions, another {label}")
            _require(len(first) == len(second), f"task {task}: same actions, episodes of different length")
            steps += len(first) - 1
        return f"{steps} steps of {len(self.ids)} tasks alike"

    def admissible(self) -> str:
        start, walks = _reset(self.env, self.ids[0]), (self._walk(self.env, task) for task in self.ids)
        return meaning.listed_actions(start, self._first_step, walks)

    def answers(self) -> str:
        return read_back(
            episode for task in self.ids for episode in (self._walk(self.env, task), self._expert(task))
        )

    def bad_actions(self) -> str:
        for action in BAD_ACTIONS:
            _require(not self._first_step(action), f"action {_shown(action)} gives valid=True, not False")
        return f"{len(BAD_ACTIONS)} bad actions give valid=False"

    def _first_step(self, action: str) -> bool:
        """Whether the action is valid in the first state of the first task."""
        self.env.reset(options={"task": self.ids[0]})
        try:
            returned = self.env.step(action)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}{place_of(error)}"
            raise FailedCheck(f"action {_shown(action)} raised {reason}") from error
        return bool(checked_step(returned)[4]["valid"])

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
                raise FailedCheck(f"{label} raises {type(error).__name__}, not TaskError") from error
            raise FailedCheck(f"{label} is accepted; it must raise TaskError")
        return "TaskError for an unknown split and an unknown task"

    def expert_wins(self) -> str:
        lengths, without_plan = [], 0
        for task in self.ids:
            trace = self._expert(task)
            steps = len(trace) - 1
            if not trace:
                without_plan += 1
                continue
            won = trace[-1].info["won"]
            _require(won, f"task {task}: the expert's plan ends after {steps} steps without a win")
            lengths.append(steps)
        _require(bool(lengths), f"expert() has no plan for any of {len(self.ids)} tasks")
        without = f", no plan for {without_plan}" if without_plan else ""
        return f"{len(lengths)} of {len(self.ids)} won in {min(lengths)} to {max(lengths)} steps{without}"

    def reader(self) -> str:
        tasks, env = self.ids, self.env
        if getattr(type(env), "reader", None) in (None, TextEnv.reader):
            return "none of its own: expert() stands for it"
        wins = 0
        for task in tasks:
            first, second = self._read(task), self._read(task)
            actions, again = [seen.action for seen in first], [seen.action for seen in second]
            _require(actions == again, f"task {task}: with the same seed reader() answers differently")
            wins += bool(first[-1].info["won"])
        if not wins:
            raise Doubt(f"reader() wins none of {len(tasks)} tasks: demos.agent=reader would show no win")
        return f"wins {wins} of {len(tasks)}, and answers alike with the same seed"

    def _read(self, task: str) -> list[Seen]:
        """The reader's episode."""
        trace = [_reset(self.env, task)]
        while not trace[-1].ended:
            action = self.env.reader(0)
            if action is None:
                break
            _require(isinstance(action, str), f"task {task}: reader() answers {action!r}; it must be text")
            late = overdue(self.env.max_steps, len(trace) - 1)
            _require(late is None, f"task {task}, played by the reader: {late}")
            trace.append(_step(self.env, action))
        return trace

    def rewards(self) -> str:
        traces = [self._expert(task) for task in self.ids]
        return meaning.payment([trace for trace in traces if trace and trace[-1].info["won"]], self._idle())

    def progress(self) -> str:
        tasks = 0  # with known progress
        for task in self.ids:
            trace = self._expert(task)
            known = [seen.info["progress"] for seen in trace if seen.info["progress"] is not None]
            for before, after in itertools.pairwise(known):
                _require(
                    after >= before - 1e-9,
                    f"task {task}: progress falls from {before:.3f} to {after:.3f} on the expert's path",
                )
            last = trace[-1].info if trace else {}
            if last.get("won") and last["progress"] is not None:
                reached = last["progress"]
                _require(abs(reached - 1) < 1e-9, f"task {task}: progress {reached} when won, not 1")
            tasks += bool(known)
        if not tasks:
            return "not known: methods and annotators that need it (oracle) cannot be used"
        return f"known for {tasks} of {len(self.ids)} tasks, rising to 1 on the expert's path"

    def anchors(self) -> str:
        return meaning.state_keys(
            [[self._walk(self.env, task), self._expert(task)] for task in self.ids], self._idle()
        )

    def words(self) -> str:
        episodes = (
            episode for task in self.ids for episode in (self._walk(self.env, task), self._expert(task))
        )
        return meaning.known_words(self.env.vocabulary(), itertools.chain(episodes, [self._idle()]))

    def truncation(self) -> str:
        limit = self.env.max_steps
        _require(limit > 0, f"max_steps is {limit}; it must be the step limit")
        for step, seen in enumerate(self._idle()[1:], start=1):
            _, terminated, truncated = seen.outcome
            _require(not terminated, f"step {step} of empty actions ends the episode as terminated")
            _require(truncated == (step == limit), f"truncated={truncated} at step {step}, limit {limit}")
        return f"at step {limit}"

    def _walk(self, env: TextEnv, task: str) -> list[Seen]:
        """Reset and up to _STEPS admissible steps."""
        trace = [_reset(env, task)]
        for number in range(_STEPS):
            trace.append(_step(env, _pick(trace[-1].info["admissible"], number)))
            if trace[-1].ended:
                break
        return trace

    def _expert(self, task: str) -> list[Seen]:
        """The expert's episode; empty where it has no plan."""
        if task not in self._experts:
            trace = [_reset(self.env, task)]
            action = self.env.expert()
            while action is not None and not trace[-1].ended:
                late = overdue(self.env.max_steps, len(trace) - 1)
                _require(late is None, f"task {task}, played by the expert: {late}")
                trace.append(_step(self.env, action))
                action = None if trace[-1].ended else self.env.expert()
            self._experts[task] = trace if len(trace) > 1 else []
        return self._experts[task]

    def _idle(self) -> list[Seen]:
        """An episode of empty actions in the first task."""
        if not self._idling:
            trace = [_reset(self.env, self.ids[0])]
            while len(trace) <= self.env.max_steps and not trace[-1].ended:
                trace.append(_step(self.env, ""))
            self._idling = trace
        return self._idling


def _reset(env: TextEnv, task: str) -> Seen:
    observation, info = checked_reset(env.reset(options={"task": task}))
    return Seen(observation, (), dict(info))


def _step(env: TextEnv, action: str) -> Seen:
    observation, reward, terminated, truncated, info = checked_step(env.step(action))
    return Seen(observation, (reward, terminated, truncated), dict(info), action)


def _shown(action: str) -> str:
    return repr(action if len(action) < 30 else action[:10] + "...")


def _pick(admissible: list[str], number: int) -> str:
    """A deterministic, varied choice; placeholders such as ``<your query>`` are filled in."""
    if not admissible:
        return ""
    return filled(admissible[(number * 7 + 3) % len(admissible)], "test")
