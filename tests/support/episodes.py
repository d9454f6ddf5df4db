"""Episodes to roll out and to check: small Sokoban rooms, an environment that fails, records by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from repro_rl import make
from repro_rl.envs.base import ENVS, TextEnv, register_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import TaskError
from repro_rl.policy.base import Policy, SamplingSettings
from repro_rl.rollout import Actor, EnvPool, PlayOptions, RolloutRequest, run_episodes
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.types import Completion, Status, Step, Trajectory, no_completion
from support.scripted import ScriptedPolicy

SOKOBAN: dict[str, Any] = {
    "train_rooms": 6,
    "validation_rooms": 2,
    "test_rooms": 2,
    "solution": (3, 6),
    "max_steps": 8,
}
SAMPLING = SamplingSettings(4)
COMPACT = PromptBuilder(TextFormat("compact", progress=True, think="off"))
FULL = PromptBuilder(TextFormat("full", progress=False, think="off"), history=2)


def sokoban_pool() -> EnvPool:
    return EnvPool("sokoban", SOKOBAN)


def run(
    pool: EnvPool,
    requests: list[RolloutRequest],
    policy: Policy,
    prompts: PromptBuilder = COMPACT,
    *,
    max_prompt_tokens: int = 2048,
    stream: object = "test",
    **options: Any,
) -> list[Trajectory]:
    """``run_episodes`` with one sampling; ``options``: of PlayOptions."""
    actor = Actor(policy, prompts, SAMPLING)
    return run_episodes(pool, requests, actor, PlayOptions(stream, **options), max_prompt_tokens)


def expert_plans(ids: Any) -> tuple[dict[str, str], dict[str, list[str]]]:
    """observation -> expert action, and the plan of every task."""
    env = make("sokoban", **SOKOBAN)
    moves: dict[str, str] = {}
    plans: dict[str, list[str]] = {}
    for task in ids:
        observation, _ = env.reset(options={"task": task})
        plans[task], ended = [], False
        while not ended:
            action = env.expert()
            assert action is not None
            moves[observation] = action
            plans[task].append(action)
            observation, _, ended, _, _ = env.step(action)
    return moves, plans


def expert_policy(moves: dict[str, str], progress: int) -> ScriptedPolicy:
    """Plays ``moves`` by compact prompts with progress, and reports the same progress at every step."""
    return ScriptedPolicy(lambda prompt, key: f"p{progress} {moves[prompt.removesuffix(' progress')]}")


def won_and_lost(pool: EnvPool) -> tuple[Trajectory, Trajectory]:
    """An episode of the expert, and one of a policy that never acts."""
    ids = pool.first.panel("train").ids
    moves, _ = expert_plans(ids)
    (won,) = run(pool, [RolloutRequest(ids[0], 0)], expert_policy(moves, 10))
    (lost,) = run(pool, [RolloutRequest(ids[1], 0)], ScriptedPolicy("p10 "))
    assert won.won
    assert not lost.won
    return won, lost


def values_text(count: int, last: int = 90) -> str:
    """A compact reflection: 10 at every step but the last."""
    return " ".join(f"t{t} p{last if t == count else 10}" for t in range(1, count + 1))


class Fragile(TextEnv):
    """Counts to 4; the task "bad" breaks at its third step, "lost" at once, "weird" has no true progress."""

    name = "fragile"
    max_steps = 6
    instructions = "Count."

    def __init__(self, long: int = 0):
        self.long = long  # words behind every observation

    def panel(self, split):
        return TaskPanel("fragile", split, ("good", "bad", "lost", "weird"), ("g", "b", "l", "w"))

    def expert(self):
        return "go"

    def _info(self):
        won = self.count == 4
        progress = None if self.task == "weird" else self.count / 4
        return {
            "task_id": self.task,
            "goal": "Count to 4.",
            "admissible": ["go"],
            "anchor": (self.task, self.count),
            "valid": np.bool_(True),
            "won": np.bool_(won),
            "score": np.float32(self.count / 4),
            "progress": progress,
        }

    def reset(self, *, seed=None, options=None):
        self.task, self.count = options["task"], 0
        if self.task == "unreachable":
            raise ConnectionError("no server")
        if self.task not in ("good", "bad", "lost", "weird"):
            raise TaskError(f"no task {self.task}")
        return f"at 0{' word' * self.long}", self._info()

    def step(self, action):
        if self.task == "lost" or (self.task == "bad" and self.count == 2):
            raise ConnectionError("server gone")
        self.count += 1
        won = self.count == 4
        return f"at {self.count}{' word' * self.long}", np.float32(won), won, False, self._info()


@contextmanager
def fragile_env() -> Iterator[None]:
    """The environment "fragile" is registered inside."""
    with ENVS.isolated():
        register_env("fragile")(Fragile)
        yield


def hand_step(t: int, completion: Completion | None = None, **fields: Any) -> Step:
    """A valid step without content; ``fields`` of Step replace its own."""
    values: dict[str, Any] = {
        "observation": "o",
        "brief": "b",
        "anchor": f"a{t}",
        "prompt": "p",
        "action": "up",
        "online": None,
        "defects": (),
        "valid": True,
        "env_reward": 0.0,
        "truth": None,
    }
    return Step(t=t, completion=completion or no_completion(), **values | fields)


def hand_episode(steps: list[Step], *, won: bool = False, **fields: Any) -> Trajectory:
    """An episode: terminated when won, else truncated; ``fields`` of Trajectory replace its own."""
    values: dict[str, Any] = {
        "task_id": "task",
        "rollout": 0,
        "goal": "goal",
        "score": float(won),
        "status": Status.TERMINATED if won else Status.TRUNCATED,
    }
    return Trajectory(steps=steps, won=won, **values | fields)


def same_episodes(left: Sequence[dict[str, Any]], right: Sequence[dict[str, Any]]) -> bool:
    """Whether records are equal, entropies up to the order of floating-point sums.

    A batch of fewer than four rows is multiplied by another kernel, which may change their last digits.
    """
    whole, parts = deepcopy(list(left)), deepcopy(list(right))
    entropies = [[step.pop("entropy") for r in records for step in r["steps"]] for records in (whole, parts)]
    return whole == parts and entropies[0] == pytest.approx(entropies[1], abs=1e-5)
