"""Demonstrations in the prompt: which episodes for which task, with which progress, at which length.

The pilot study's three kinds show the same episodes (decision D46) and differ in the numbers alone.
``retrospective`` has the annotator's; ``plain`` has none and is a control (decision D43). ``random`` is
uniform 0..100 for every step. The outcome does not anchor it, since a number that is always right would be
information (decision D44).
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
from repro_rl.text.prompts import DemoEpisode, DemoStep, PromptBuilder
from repro_rl.types import Trajectory

Labels = Literal["plain", "random", "retrospective"]
LABELS: tuple[Labels, ...] = ("plain", "random", "retrospective")
CUTS = (300, 100)  # most characters of an observation, in full style, where whole ones do not fit
WHOLE, NONE = "whole", "none"  # names of the first and of the last block


class DemoBlock(NamedTuple):
    """Demonstrations as text."""

    name: str  # what was cut or left out
    text: str


@dataclass(slots=True)
class InContextDemos:
    """Expert episodes without mistakes as demonstrations in prompts, ``count`` with each task.

    The choice depends on ``seed`` and the task only, so every kind of labels gives the same episodes. Raises
    ConfigError for unknown labels, DataError when there are too few episodes.
    """

    experts: Sequence[Trajectory]
    labels: Labels
    count: int = 2  # demonstrations a task
    seed: int = 0
    task_type: Callable[[str], str | None] = lambda task_id: (
        None
    )  # as TextEnv's; the task's own type comes first
    _usable: list[Trajectory] = field(init=False)

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ConfigError(
                f"Demonstrations with {self.labels!r} progress{did_you_mean(self.labels, LABELS)}"
            )
        usable = {
            t.task_id: t
            for t in self.experts
            if t.won and t.steps and _values(t) is not None and not any(step.mistake for step in t.steps)
        }
        if len(usable) <= self.count:
            raise DataError(
                f"{self.count} demonstrations a prompt need at least {self.count + 1} solved and labelled "
                f"expert episodes without mistakes, of different tasks; there are {len(usable)}. Raise "
                "demos.expert, set demos.mistakes=[0.0], or lower prompt.demonstrations."
            )
        self._usable = list(usable.values())

    def choose(self, task_id: str, goal: str, first_observation: str) -> list[Trajectory]:
        """At most ``count`` demonstrations for a task: never of itself, nor of one that looks the same."""
        own_type = self.task_type(task_id)
        others = [
            t
            for t in self._usable
            if t.task_id != task_id and (t.goal, t.steps[0].observation) != (goal, first_observation)
        ]

        def rank(trajectory: Trajectory) -> tuple[bool, int]:
            other_type = own_type is not None and self.task_type(trajectory.task_id) != own_type
            return other_type, name_key("shown", self.seed, task_id, trajectory.task_id)

        return sorted(others, key=rank)[: self.count]

    def progress(self, trajectory: Trajectory, task_id: str) -> Sequence[int | None]:
        """The progress [T] of a demonstration in the prompts of ``task_id``; None where it has none."""
        if self.labels == "retrospective":
            return cast(Sequence[int], _values(trajectory))
        if self.labels == "random":
            key = name_key("shown-random", self.seed, task_id, trajectory.task_id)
            return uniform(trajectory, np.random.default_rng(key))
        return [None] * len(trajectory.steps)

    def blocks(
        self, prompts: PromptBuilder, task_id: str, goal: str, first_observation: str
    ) -> list[DemoBlock]:
        """The demonstrations for a task, from whole to nothing: a prompt takes the first one that fits.

        Full style: all of them with observations cut to 300, then to 100 characters, then fewer of those.
        Compact style: fewer of them; a word cut in two would be unknown.
        """
        chosen = self.choose(task_id, goal, first_observation)
        cuts: list[int | None] = [None] if prompts.fmt.style == "compact" else [None, *CUTS]
        sizes = [(len(chosen), cut) for cut in cuts] + [(n, cuts[-1]) for n in range(len(chosen) - 1, 0, -1)]

        @cache
        def render(number: int, cut: int | None) -> str:
            return prompts.demonstrations([self._episode(t, task_id, cut) for t in chosen[:number]])

        names: dict[str, str] = {}  # text -> name; observations that are short anyway give equal texts
        for number, cut in sizes:
            text = render(number, cut)
            parts = [f"{number} of {len(chosen)}"] if number < len(chosen) else []
            parts += [f"observations cut to {cut} characters"] if cut and text != render(number, None) else []
            names.setdefault(text, ", ".join(parts) or WHOLE if text else NONE)
        names.setdefault("", NONE)
        return [DemoBlock(name, text) for text, name in names.items()]

    def texts(self, prompts: PromptBuilder) -> Callable[[str, str, str], list[str]]:
        """As ``rollout.act.Demonstrations``: the texts of ``blocks`` of a task."""
        return lambda *task: [block.text for block in self.blocks(prompts, *task)]

    def count_steps(
        self, trajectories: Iterable[Trajectory], prompts: PromptBuilder, *, shown_once: bool = False
    ) -> dict[str, int]:
        """Number of steps played with each block, by its name: how far token limits shortened demonstrations.

        ``shown_once``: the first prompt of an episode holds it for all steps (chat mode).
        """
        counts: Counter[str] = Counter()
        for trajectory in trajectories:
            if trajectory.steps:
                first = trajectory.steps[0].observation
                blocks = self.blocks(prompts, trajectory.task_id, trajectory.goal, first)
                counts.update(
                    next(block.name for block in blocks if block.text in step.prompt)
                    for step in (
                        trajectory.steps[:1] * len(trajectory.steps) if shown_once else trajectory.steps
                    )
                )
        return dict(counts)

    def _episode(self, trajectory: Trajectory, task_id: str, cut: int | None) -> DemoEpisode:
        def shortened(text: str) -> str:
            return text if cut is None or len(text) <= cut else f"{text[:cut].rstrip()} …"

        steps, progress = trajectory.steps, self.progress(trajectory, task_id)
        before = [steps[0].observation, *(step.brief for step in steps[:-1])]
        return DemoEpisode(
            trajectory.goal,
            shortened(before[0]),
            tuple(
                DemoStep(step.t, shortened(observation), step.action, shortened(step.brief), value)
                for step, observation, value in zip(steps, before, progress, strict=True)
            ),
        )


def mode_labels(mode: str) -> Labels | None:
    """The labels in the demonstrations of a mode of ``warmup.forward_modes``; None for a mode without any."""
    return next((labels for labels in LABELS if mode == f"demos-{labels}"), None)


def _values(trajectory: Trajectory) -> tuple[int, ...] | None:
    return None if trajectory.reflection is None else trajectory.reflection.values
