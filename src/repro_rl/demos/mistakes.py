"""Noise-injected demonstrations: mistakes are executed, the expert's answers are what is imitated.

An expert that never errs visits few states, and a policy that errs once leaves them for good. Here some
executed actions are mistakes, and every state has the expert's answer (DART, Laskey et al. 2017, arXiv
1703.09327). Mistakes are of the kinds that a trained policy makes. These are a wrong number, an action that
was possible earlier, the last action once more, or any possible action.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from repro_rl.envs.base import PLACEHOLDER, TextEnv
from repro_rl.envs.contract import checked_reset, checked_step
from repro_rl.rollout.episode import concerns_all, play_actions, reason_of
from repro_rl.types import Advice, Trajectory

Agent = Literal["reader", "planner"]
KINDS = {"number": 0.35, "stale": 0.2, "repeat": 0.15, "random": 0.3}  # of mistake: its share
FARTHEST = 4  # a wrong number differs by at most that
_NUMBER = re.compile(r"(?<=\s)\d{1,2}\b")  # such as that of "drawer 2"


def fill_placeholder(action: str, goal: str, rng: np.random.Generator) -> str:
    """``search[<your query>]`` with one to four words of the goal instead of the hint."""
    words = re.findall(r"[\w'-]+", goal)
    if not words or not PLACEHOLDER.search(action):
        return action
    start = int(rng.integers(len(words)))
    return PLACEHOLDER.sub(lambda _: " ".join(words[start : start + 1 + int(rng.integers(4))]), action)


@dataclass(slots=True)
class Mistakes:
    """Draws the mistakes of one episode."""

    rng: np.random.Generator
    rate: float  # share of executed actions that are mistakes
    _so_far: dict[str, None] = field(default_factory=dict)  # all actions that were admissible
    _last: str = ""  # the last executed action

    def executed(self, answer: str, info: dict[str, Any]) -> str:
        """The action to execute where the expert answers ``answer`` ("" : none), with ``info`` of the env."""
        admissible: Sequence[str] = info["admissible"]
        self._so_far.update(dict.fromkeys(admissible))
        action = answer
        if not answer or self.rng.random() < self.rate:
            action = fill_placeholder(self._mistake(answer, admissible), info["goal"], self.rng) or answer
        self._last = action
        return action

    def _mistake(self, answer: str, admissible: Sequence[str]) -> str:
        kind = str(self.rng.choice(list(KINDS), p=list(KINDS.values())))
        if kind == "number" and (numbers := list(_NUMBER.finditer(answer))):
            return self._wrong_number(answer, numbers[int(self.rng.integers(len(numbers)))])
        if kind == "repeat" and self._last not in ("", answer):
            return self._last
        choices = [action for action in (self._so_far if kind == "stale" else admissible) if action != answer]
        return choices[int(self.rng.integers(len(choices)))] if choices else ""

    def _wrong_number(self, answer: str, match: re.Match[str]) -> str:
        right = int(match[0])
        others = [n for n in range(max(1, right - FARTHEST), right + FARTHEST + 1) if n != right]
        wrong = others[int(self.rng.integers(len(others)))]
        return f"{answer[: match.start()]}{wrong}{answer[match.end() :]}"


def demonstrate(env: TextEnv, task_id: str, agent: Agent, rate: float, seed: int) -> Trajectory:
    """One episode with mistakes; every step has the expert's ``advice`` and the true progress after it.

    ``rate``: share of executed actions that are mistakes. Where the expert has no answer (a dead end),
    actions are random. ``seed`` decides the expert's ties and the mistakes.
    """
    trajectory, answers = _play(env, task_id, agent, rate, seed)
    if trajectory.failed:  # it is not imitated
        return trajectory
    for step, answer in zip(trajectory.steps, answers, strict=True):
        step.advice = Advice(answer, step.truth if answer == step.action else None)
    _add_truths(env, trajectory)
    return trajectory


def play_with_mistakes(env: TextEnv, task_id: str, agent: Agent, rate: float, seed: int) -> Trajectory:
    """The episode of ``demonstrate`` without the expert's advice: one to judge, not to imitate."""
    return _play(env, task_id, agent, rate, seed)[0]


def _play(env: TextEnv, task_id: str, agent: Agent, rate: float, seed: int) -> tuple[Trajectory, list[str]]:
    """The episode, and the expert's answer in every state, "" where it had none."""
    mistakes = Mistakes(np.random.default_rng(seed), rate)
    answers: list[str] = []

    def choose(info: dict[str, Any]) -> str:
        answers.append((env.reader(seed) if agent == "reader" else env.expert()) or "")
        return mistakes.executed(answers[-1], info)

    return play_actions(env, task_id, choose), answers


def _add_truths(env: TextEnv, trajectory: Trajectory) -> None:
    """The true progress after every answer that was not executed: the episode is played again up to it.

    An environment that fails meanwhile, fails the episode, as in ``play_actions``.
    """
    for index, step in enumerate(trajectory.steps):
        if step.advice is None or not step.mistake or not step.advice.action:
            continue
        t = 0  # of the replay; 0 at its reset
        try:
            checked_reset(env.reset(options={"task": trajectory.task_id}))
            for action in (*(before.action for before in trajectory.steps[:index]), step.advice.action):
                t += 1
                info = checked_step(env.step(action))[4]
        except Exception as error:
            if concerns_all(error):
                raise
            trajectory.fail(f"played again, {reason_of(error, t)}")
            return
        step.advice.truth = None if info["progress"] is None else float(info["progress"])
