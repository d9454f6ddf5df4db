"""Annotators: who says how far each step of a demonstration had brought the agent.

An annotator maps a finished trajectory and a random generator to P_1..P_T (integers 0..100). Whatever it
says, the known outcome anchors the end: 100 on success, at most 99 on failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from repro_rl.errors import DataError
from repro_rl.registry import Registry
from repro_rl.types import Trajectory

Annotator = Callable[[Trajectory, np.random.Generator], Sequence[int]]
ANNOTATORS: Registry[Annotator] = Registry("annotator", group="repro_rl.annotators")


def register_annotator(name: str) -> Callable[[Annotator], Annotator]:
    """Decorator: make an annotator available by name."""
    return ANNOTATORS.register(name)


@register_annotator("oracle")
def oracle(trajectory: Trajectory, rng: np.random.Generator) -> list[int]:
    """The environment's ground truth. Raises DataError where the environment has none."""
    values = []
    for step in trajectory.steps:
        if step.truth is None:
            raise DataError(
                "no ground-truth progress; use another annotator",
                record=trajectory.task_id,
                field=f"step {step.t}",
            )
        values.append(round(100 * step.truth))
    return values


@register_annotator("linear")
def linear(trajectory: Trajectory, rng: np.random.Generator) -> list[int]:
    """t/T on success, 0 on failure: a judge that only counts steps."""
    total = len(trajectory.steps)
    return [round(100 * t / total) if trajectory.won else 0 for t in range(1, total + 1)]


@register_annotator("constant")
def constant(trajectory: Trajectory, rng: np.random.Generator) -> list[int]:
    """50 at every step."""
    return [50] * len(trajectory.steps)


@register_annotator("random")
def uniform(trajectory: Trajectory, rng: np.random.Generator) -> list[int]:
    """Uniform integers: the paper's random-progress demonstrations."""
    return [int(value) for value in rng.integers(0, 101, len(trajectory.steps))]


def annotate(trajectory: Trajectory, name: str, rng: np.random.Generator) -> tuple[int, ...]:
    """P_1..P_T by the named annotator, anchored by the outcome.

    Raises DataError when an annotator gives another number of values than there are steps.
    """
    values = [min(100, max(0, int(value))) for value in ANNOTATORS.get(name)(trajectory, rng)]
    if len(values) != len(trajectory.steps):
        raise DataError(
            f"annotator {name!r} gave {len(values)} values for {len(trajectory.steps)} steps",
            record=trajectory.task_id,
        )
    if trajectory.won:
        values[-1] = 100
    else:
        values = [min(value, 99) for value in values]
    return tuple(values)
