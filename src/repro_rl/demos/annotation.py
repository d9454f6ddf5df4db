"""What an annotator of demonstrations is: of single episodes, or of all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from repro_rl.config import RunConfig
from repro_rl.types import Reflection, Trajectory


@dataclass(slots=True)
class AnnotationContext:
    """The inputs of a batch annotator apart from the episodes."""

    instructions: str  # the environment's rules
    rng: np.random.Generator
    config: RunConfig | None = None  # all settings of the command; None when called without any
    on_done: Callable[[int], None] | None = None  # called with the number of episodes that were answered
    notes: dict[str, Any] = field(default_factory=dict)  # for demos.json, such as the cost


Annotator = Callable[[Trajectory, np.random.Generator], Sequence[int]]  # labels one episode: P_1..P_T


@dataclass(slots=True, frozen=True)
class BatchAnnotator:
    """A batch function as a registered annotator.

    ``label`` gives one Reflection for each episode; where ``values`` are None, ``defects`` say why.
    ``settings``: the part of the configuration that its labels depend on. ``check`` raises the error of a
    configuration that must fail, before anything is played.
    """

    label: Callable[[Sequence[Trajectory], AnnotationContext], list[Reflection]]
    settings: Callable[[RunConfig], dict[str, Any]] = lambda config: {}
    check: Callable[[RunConfig | None], None] = lambda config: None
