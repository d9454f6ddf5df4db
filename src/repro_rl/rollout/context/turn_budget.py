"""How many tokens a user turn of a conversation may have, and the longest turn that fits them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from repro_rl.rollout.context.base import ContextLimits
from repro_rl.rollout.fit import MIN_OBSERVATION, FittedPrompt, largest_fitting, shorten
from repro_rl.text.prompts import StepInputs
from repro_rl.text.turns import TurnPrompts
from repro_rl.types import Trajectory

# (won, score) of the outcomes whose reflection turns may differ in length: won, failed, failed in part.
OUTCOMES = ((True, 1.0), (False, 0.0), (False, 0.55))
Attempt = Callable[[str], str | None]  # observation -> the turn with it, where it fits


class TurnSize(Protocol):
    """Tokens that a user turn adds to a conversation; 0 where only a server knows."""

    def __call__(self, text: str, /, *, first: bool = False) -> int: ...


class TurnBudget:
    """Fits the user turns of conversations into their limits."""

    def __init__(self, turns: TurnPrompts, size: TurnSize, limits: ContextLimits):
        self.turns, self.size, self.limits = turns, size, limits
        self._reserved: dict[tuple[str, int], int] = {}

    def reserved(self, goal: str, steps: int) -> int:
        """Tokens that the reflection on ``steps`` steps needs at most, without the last observation."""
        key = (goal, steps)
        if key not in self._reserved:
            self._reserved[key] = self.limits.reflection + max(
                self.size(self.turns.reflect(goal=goal, observation="", length=steps, won=won, score=score))
                for won, score in OUTCOMES
            )
        return self._reserved[key]

    def fit_turn(self, inputs: StepInputs, demonstrations: list[str], used: int) -> FittedPrompt | None:
        """The user turn of a step, after ``used`` tokens of conversation; None when none fits.

        The first turn gives up demonstrations (``demonstrations``, as in ``fitting_prompt``). Then a turn
        over ``limits.prompt`` gives up the middle of its observation. In a later turn a nearly full
        conversation cuts no observation: the episode ends instead, since it would act on half the state.
        """
        first = inputs.step == 1
        reserved = self.reserved(inputs.goal, inputs.step)
        free = self.limits.conversation - used - self.limits.action - reserved
        limit = min(self.limits.prompt, free) if first else self.limits.prompt

        def attempt(observation: str) -> str | None:
            texts = demonstrations[0] if first else ""
            text = self.turns.act(replace(inputs, observation=observation, demonstrations=texts))
            return text if self.size(text, first=first) <= limit else None

        text = attempt(inputs.observation)
        while text is None and first and len(demonstrations) > 1:
            del demonstrations[0]
            text = attempt(inputs.observation)
        whole = text is not None
        if text is None:
            text = self._shortened(inputs.observation, attempt)
        if text is None or self.size(text, first=first) > free:
            return None
        return FittedPrompt(text, "" if whole else "observation")

    def fit_question(self, trajectory: Trajectory, used: int) -> tuple[str, bool]:
        """The reflection's turn after ``used`` tokens, and whether its observation was cut or left out."""
        limit = min(self.limits.conversation - used - self.limits.reflection, self.limits.prompt)

        def question(observation: str) -> str:
            return self.turns.reflect(
                goal=trajectory.goal,
                observation=observation,
                length=len(trajectory.steps),
                won=trajectory.won,
                score=trajectory.score,
            )

        def attempt(observation: str) -> str | None:
            text = question(observation)
            return text if self.size(text) <= limit else None

        text = attempt(trajectory.final_observation)
        if text is not None:
            return text, False
        return self._shortened(trajectory.final_observation, attempt) or question(""), True

    def _shortened(self, observation: str, attempt: Attempt) -> str | None:
        """The turn with as much of the observation as fits; None in compact style, or when nothing fits."""
        if self.turns.fmt.style != "full" or len(observation) <= MIN_OBSERVATION:
            return None
        return largest_fitting(len(observation), lambda characters: attempt(shorten(observation, characters)))
