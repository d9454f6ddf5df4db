"""Annotators: they label the steps of demonstrations with progress.

An annotator maps a finished trajectory and a random generator to P_1..P_T (integers 0..100). The known
outcome then anchors the end: 100 on success, at most 99 on failure (decision D32). A batch annotator gets all
episodes at once and may leave some unlabelled, naming the defects.
"""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repro_rl.config import RunConfig
from repro_rl.demos.annotation import AnnotationContext, Annotator, BatchAnnotator
from repro_rl.errors import ConfigError, DataError, named_failure
from repro_rl.registry import Registry
from repro_rl.types import Reflection, Step, Trajectory, no_completion

ANNOTATORS: Registry[Annotator | BatchAnnotator] = Registry(
    "annotator", group="repro_rl.annotators", setting="demos.annotator"
)


def register_annotator(name: str) -> Callable[[Annotator], Annotator]:
    """Decorator: make an annotator of single episodes available by name."""

    def add(annotator: Annotator) -> Annotator:
        ANNOTATORS.register(name, annotator)
        return annotator

    return add


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
    """100 t/T on success, 0 on failure: a judge that only counts steps (decision D39)."""
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


def _http(trajectories: Sequence[Trajectory], context: AnnotationContext) -> list[Reflection]:
    """A model behind an API reads each episode and writes its progress (docs/api-annotate.md)."""
    from repro_rl.demos.http import annotate_by_api  # loads the HTTP client only when it is used

    return annotate_by_api(trajectories, context)


def _http_settings(config: RunConfig) -> dict[str, Any]:
    from repro_rl.demos.http import annotation_settings

    return annotation_settings(config.api, config.prompt)


def _http_check(config: RunConfig | None) -> None:
    from repro_rl.demos.http import NEEDS_API
    from repro_rl.policy.http import ChatClient

    if config is None:
        raise ConfigError(NEEDS_API)
    ChatClient(config.api).close()


ANNOTATORS.register("http", BatchAnnotator(_http, _http_settings, _http_check))


def annotate(trajectory: Trajectory, name: str, rng: np.random.Generator) -> tuple[int, ...]:
    """P_1..P_T by the named annotator of single episodes, anchored by the outcome.

    Raises DataError when an annotator gives another number of values than there are steps, or a value that is
    no whole number within 0..100. Raises ConfigError for an annotator that labels batches.
    """
    annotator = ANNOTATORS.get(name)
    if isinstance(annotator, BatchAnnotator):
        raise ConfigError(f"The annotator {name!r} labels all episodes at once; call annotate_all.")
    with named_failure(f"The annotator {name!r}"):
        labels = annotator(trajectory, rng)
    return anchored(trajectory, labels, name)


def is_percent(value: Any) -> bool:
    """Whether a label is a whole number within 0..100."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value // 1
    return bool(number and 0 <= value <= 100)


def anchored(trajectory: Trajectory, labels: Sequence[int], name: str) -> tuple[int, ...]:
    """``labels`` with their end as the outcome demands.

    Raises DataError for another count, and for a label that is no whole number within 0..100.
    """
    values = list(labels)
    if len(values) != len(trajectory.steps):
        raise DataError(
            f"annotator {name!r} gave {len(values)} values for {len(trajectory.steps)} steps",
            record=trajectory.task_id,
        )
    for t, value in enumerate(values, 1):
        if not is_percent(value):
            raise DataError(
                f"annotator {name!r} gave {value!r}; progress is a whole number of percent, 0 to 100",
                record=trajectory.task_id,
                field=f"step {t}",
            )
    values = [int(value) for value in values]
    if trajectory.won:
        values[-1] = 100
    else:
        values = [min(value, 99) for value in values]
    return tuple(values)


def annotate_all(trajectories: Sequence[Trajectory], name: str, context: AnnotationContext) -> None:
    """Label every episode: its reflection, and the same values as each step's online target (decision D31).

    An unlabelled episode is kept; its reflection names the defects and its steps have no online value. Counts
    of a batch annotator go to ``context.notes``. Raises DataError for another number of labels than episodes.
    """
    annotator = ANNOTATORS.get(name)
    if not isinstance(annotator, BatchAnnotator):
        for trajectory in trajectories:
            values = annotate(trajectory, name, context.rng)
            store_labels(trajectory, Reflection("", no_completion(), values, ()), name)
        return
    with named_failure(f"The annotator {name!r}"):
        reflections = annotator.label(trajectories, context)
    if len(reflections) != len(trajectories):
        raise DataError(
            f"annotator {name!r} gave {len(reflections)} labels for {len(trajectories)} episodes; "
            "it must give one Reflection for each"
        )
    corrected = 0
    for trajectory, reflection in zip(trajectories, reflections, strict=True):
        if reflection.values is None:
            reflection.defects = reflection.defects or ("unlabelled",)
        else:
            values = anchored(trajectory, reflection.values, name)
            corrected += values != tuple(reflection.values)
            reflection.values = values
        store_labels(trajectory, reflection, name)
    defects = Counter(name for r in reflections if r.values is None for name in r.defects)
    context.notes |= {
        "episodes": len(reflections),
        "unlabelled": sum(r.values is None for r in reflections),
        "defects": dict(sorted(defects.items())),
        "corrected_by_outcome": corrected,
    }


def store_labels(trajectory: Trajectory, reflection: Reflection, name: str) -> None:
    """Give an episode its reflection, by the annotator ``name``, and each step the label of its answer."""
    trajectory.reflection = reflection
    before = 0
    for index, step in enumerate(trajectory.steps):
        step.online = None if reflection.values is None else reflection.values[index]
        if step.advice is not None and step.online is not None:
            step.advice.online = _after_advice(step, before, name)
        before = step.online or 0


def _after_advice(step: Step, before: int, name: str) -> int:
    """The label of the expert's answer in a step, ``before`` being the label of the step before.

    The oracle knows the true progress after it. Any other annotator has judged the executed action alone. For
    a mistake, the answer gets the label of the step or of the one before, whichever is higher.
    """
    assert step.advice is not None
    assert step.online is not None
    if not step.mistake:
        return step.online
    if name == "oracle" and step.advice.truth is not None:
        percent = round(100 * step.advice.truth)
        return percent if step.advice.truth >= 1 else min(percent, 99)
    return max(before, step.online)
