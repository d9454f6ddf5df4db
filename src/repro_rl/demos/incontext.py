"""Demonstrations in the prompt: which are shown with which task, with what progress, and in how much room.

The pilot study's three kinds show the same episodes and differ in the numbers alone: ``retrospective`` (the
annotator's), ``random`` (uniform 0..100 for every step; not anchored by the outcome, since a number that is
always right would be information: our decision) and ``plain`` (none; our control).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple, cast

import numpy as np

from repro_rl.demos.annotators import uniform
from repro_rl.errors import ConfigError, DataError, did_you_mean
from repro_rl.random_streams import name_key
from repro_rl.text.prompts import PromptBuilder, ShownEpisode, ShownStep
from repro_rl.types import Trajectory

Labels = Literal["plain", "random", "retrospective"]
LABELS: tuple[Labels, ...] = ("plain", "random", "retrospective")
CUTS = (300, 100)  # characters of an observation, full style, where the whole does not fit
WHOLE, NONE = "whole", "none"


class Block(NamedTuple):
    """Demonstrations as text, and what had to be left out."""

    name: str
    text: str


def _no_type(task_id: str) -> str | None:
    return None


@dataclass(slots=True)
class Shelf:
    """Expert episodes to show, ``count`` with each task. Raises DataError when there are too few.

    ``task_type``: as TextEnv's; demonstrations of the task's own type come first. Which are shown depends on
    ``seed`` and the task only, so every kind of labels shows the same ones.
    """

    experts: Sequence[Trajectory]
    labels: Labels
    count: int = 2
    seed: int = 0
    task_type: Callable[[str], str | None] = _no_type
    _pool: list[Trajectory] = field(init=False)

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ConfigError(
                f"Demonstrations with {self.labels!r} progress{did_you_mean(self.labels, LABELS)}"
            )
        usable = {t.task_id: t for t in self.experts if t.won and t.steps and _values(t) is not None}
        if len(usable) <= self.count:
            raise DataError(
                f"{self.count} demonstrations a prompt need at least {self.count + 1} solved and labelled "
                f"expert episodes of different tasks; there are {len(usable)}. Raise demos.expert, or lower "
                "prompt.demonstrations."
            )
        self._pool = list(usable.values())

    def choose(self, task_id: str, goal: str, first_observation: str) -> list[Trajectory]:
        """At most ``count`` demonstrations for a task: never of itself, nor of one that looks the same."""
        kind = self.task_type(task_id)
        others = [
            t
            for t in self._pool
            if t.task_id != task_id and (t.goal, t.steps[0].observation) != (goal, first_observation)
        ]

        def rank(trajectory: Trajectory) -> tuple[bool, int]:
            other = kind is not None and self.task_type(trajectory.task_id) != kind
            return other, name_key("shown", self.seed, task_id, trajectory.task_id)

        return sorted(others, key=rank)[: self.count]

    def progress(self, trajectory: Trajectory, task_id: str) -> Sequence[int | None]:
        """The numbers shown behind the steps of a demonstration, when shown with ``task_id``."""
        if self.labels == "retrospective":
            return cast(Sequence[int], _values(trajectory))
        if self.labels == "random":
            key = name_key("shown-random", self.seed, task_id, trajectory.task_id)
            return uniform(trajectory, np.random.default_rng(key))
        return [None] * len(trajectory.steps)

    def blocks(self, prompts: PromptBuilder, task_id: str, goal: str, first_observation: str) -> list[Block]:
        """The demonstrations for a task, from whole to nothing: a prompt takes the first one that fits.

        Full style: all of them with observations cut to 300, then to 100 characters, then fewer of those.
        Compact style: fewer of them; a word cut in two would be unknown.
        """
        chosen = self.choose(task_id, goal, first_observation)
        cuts: list[int | None] = [None] if prompts.fmt.style == "compact" else [None, *CUTS]
        wanted = [(len(chosen), cut) for cut in cuts] + [(n, cuts[-1]) for n in range(len(chosen) - 1, 0, -1)]

        @cache
        def shown(number: int, cut: int | None) -> str:
            return prompts.demonstrations([self._shown(t, task_id, cut) for t in chosen[:number]])

        found: dict[str, str] = {}  # text -> name; observations that are short anyway give equal texts
        for number, cut in wanted:
            text = shown(number, cut)
            parts = [f"{number} of {len(chosen)}"] if number < len(chosen) else []
            parts += [f"observations cut to {cut} characters"] if cut and text != shown(number, None) else []
            found.setdefault(text, ", ".join(parts) or WHOLE if text else NONE)
        found.setdefault("", NONE)
        return [Block(name, text) for text, name in found.items()]

    def texts(self, prompts: PromptBuilder) -> Callable[[str, str, str], list[str]]:
        """What ``run_episodes`` asks for: the texts of ``blocks`` of a task."""
        return lambda *task: [block.text for block in self.blocks(prompts, *task)]

    def census(
        self, trajectories: Iterable[Trajectory], prompts: PromptBuilder, *, first_turns: bool = False
    ) -> dict[str, int]:
        """How many steps were played with which block, by name: what the room had taken away.

        ``first_turns``: the episodes are conversations, which show it in their first turn for good.
        """
        counts: Counter[str] = Counter()
        for trajectory in trajectories:
            if trajectory.steps:
                first = trajectory.steps[0].observation
                blocks = self.blocks(prompts, trajectory.task_id, trajectory.goal, first)
                counts.update(
                    next(block.name for block in blocks if block.text in step.prompt)
                    for step in (
                        trajectory.steps[:1] * len(trajectory.steps) if first_turns else trajectory.steps
                    )
                )
        return dict(counts)

    def _shown(self, trajectory: Trajectory, task_id: str, cut: int | None) -> ShownEpisode:
        def short(text: str) -> str:
            return text if cut is None or len(text) <= cut else f"{text[:cut].rstrip()} …"

        steps = trajectory.steps
        before = [steps[0].observation, *(step.brief for step in steps[:-1])]
        return ShownEpisode(
            trajectory.goal,
            short(before[0]),
            tuple(
                ShownStep(step.t, short(seen), step.action, short(step.brief), value)
                for step, seen, value in zip(steps, before, self.progress(trajectory, task_id), strict=True)
            ),
        )


def mode_labels(mode: str) -> Labels | None:
    """The labels that a prompt mode of ``warmup.forward_modes`` shows; None where it shows nothing."""
    return next((labels for labels in LABELS if mode == f"demos-{labels}"), None)


def _values(trajectory: Trajectory) -> tuple[int, ...] | None:
    return None if trajectory.reflection is None else trajectory.reflection.values
