"""Where a progress series comes from, by name.

A package adds its own with ``@register_progress``, or as an entry point. The name is then a value of
``method.shaping`` and ``method.alignment``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from repro_rl.credit.baseline import check_choice
from repro_rl.errors import ConfigError, named_failure
from repro_rl.function_settings import check_keyword_only, keyword_settings, parameters_of
from repro_rl.registry import Registry
from repro_rl.types import Group, Trajectory

Anchor = Literal["none", "clip", "outcome"]
Series = list[float] | None
# P_1..P_T of a finished episode as fractions 0..1, [T]; None where it has no values.
TrajectorySource = Callable[..., Series]  # of a ``Trajectory`` and its settings


@dataclass(slots=True, frozen=True)
class GroupSource:
    """A source that needs all rollouts of the task, or the settings: one series (or None) a trajectory.

    ``series(group, settings)`` gets the ``RewardSettings`` of the run. Its keyword-only parameters are
    settings, see ``register_progress``.
    """

    series: Callable[..., Sequence[Series]]
    bounded: bool = True  # False: any finite number; then it can be rewarded, but not compared with estimates
    judged: bool = False  # True: it reads the reflections, so the run has to write them
    lost_only: bool = False  # True: it reads those of tasks that no rollout won, and no others


ProgressSource = TrajectorySource | GroupSource

OWN = "method.progress_settings"  # where a run gives the settings of registered sources, by their names
FAILURE_CAP = 0.99  # P_T < 100 on a failure (decision D10)

SOURCES: Registry[ProgressSource] = Registry(
    "source of progress", group="repro_rl.progress", setting="method.shaping"
)


def register_progress(name: str) -> Callable[[ProgressSource], ProgressSource]:
    """Decorator: add a function from a finished ``Trajectory`` to P_1..P_T (fractions, [T]) or None.

    Or call it with a ``GroupSource``. Keyword-only parameters of the function, each with a default, are the
    source's settings: a run gives them in ``method.progress_settings.<name>``. Raises ConfigError when the
    name is taken, and for a function of another form.
    """

    def add(source: ProgressSource) -> ProgressSource:
        check_source(name, source)
        return SOURCES.register(name, source)(source)

    return add


def check_source(name: str, source: ProgressSource) -> None:
    """Raises ConfigError for a source of another form, and for a parameter that nothing would ever fill."""
    owner = source_owner(name)
    form = ("group", "settings") if isinstance(source, GroupSource) else ("trajectory",)
    parameters = parameters_of(owner, function_of(source))
    needed = [p for p in parameters if p.kind is not p.KEYWORD_ONLY and p.default is p.empty]
    if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        if len(needed) != len(form):
            raise ConfigError(
                f"{owner} must take ({', '.join(form)}, *, SETTING=VALUE, ...); it takes "
                f"({', '.join(map(str, parameters))})."
            )
        check_keyword_only(owner, parameters, f"{OWN}.{name}")
    keyword_settings(owner, function_of(source), f"{OWN}.{name}")


def own_settings(name: str) -> dict[str, Any]:
    """The settings of a source, with their defaults. Raises UnknownNameError for an unknown one."""
    return keyword_settings(source_owner(name), function_of(SOURCES.get(name)), f"{OWN}.{name}")


def function_of(source: ProgressSource) -> Callable[..., Any]:
    """The function of a source."""
    return source.series if isinstance(source, GroupSource) else source


def source_owner(name: str) -> str:
    """What messages call a source."""
    return f"The progress source {name!r}"


def alignable(name: str) -> bool:
    """Whether online estimates can be compared with the source: not with themselves, nor without bounds."""
    source = SOURCES.get(name)
    return name != "online" and not (isinstance(source, GroupSource) and not source.bounded)


def reads_reflections(name: str) -> bool:
    """Whether the source's values come from the reflections, so that a run has to write them."""
    if name in ("none", "outcome"):
        return False
    source = SOURCES.get(name)
    return name == "retrospective" or (isinstance(source, GroupSource) and source.judged)


def reads_lost_only(name: str) -> bool:
    """Whether the source reads no reflection of a task that a rollout won."""
    if not reads_reflections(name):
        return True
    source = SOURCES.get(name)
    return isinstance(source, GroupSource) and source.lost_only


def has_win(trajectories: Iterable[Trajectory]) -> bool:
    """Whether a completed rollout won: only then do the outcomes of its task tell states apart."""
    return any(t.won and not t.failed for t in trajectories)


@register_progress("retrospective")
def retrospective(trajectory: Trajectory) -> list[float] | None:
    """The reflection's values; None without a valid reflection."""
    values = trajectory.judged
    return None if values is None else [value / 100 for value in values]


@register_progress("online")
def online(trajectory: Trajectory) -> list[float] | None:
    """P_t = q_t; a missing q_t repeats the last value; None when no step has one."""
    if all(step.online is None for step in trajectory.steps):
        return None
    series: list[float] = []
    for step in trajectory.steps:
        last = series[-1] if series else 0.0
        series.append(last if step.online is None else step.online / 100)
    return series


@register_progress("oracle")
def oracle(trajectory: Trajectory) -> list[float] | None:
    """The environment's true progress (decision D4); None when any step lacks it."""
    truth = [step.truth for step in trajectory.steps if step.truth is not None]
    return truth if len(truth) == len(trajectory.steps) else None


@register_progress("linear")
def linear(trajectory: Trajectory) -> list[float]:
    """t/T on a success, else all 0: a control that knows only the outcome (decision D39)."""
    count = len(trajectory.steps)
    return [t / count if trajectory.won else 0.0 for t in range(1, count + 1)]


def progress_series(
    trajectory: Trajectory,
    source: str,
    *,
    anchor: Anchor = "clip",
    settings: Mapping[str, Any] | None = None,
) -> list[float] | None:
    """Return P_0..P_T as fractions 0..1, [T + 1] with P_0 = 0, or None where ``source`` has no values.

    ``settings``: keyword arguments of a registered source that has some.

    ``anchor`` corrects retrospective values by the known outcome (paper: P_T = 100 on success; decision D10
    for failures). ``"clip"``: success sets P_T to 1, failure caps every P_t at 0.99. ``"outcome"``: success
    sets P_T to 1, failure lowers P_T to at most the score. ``"none"``: the values as they were written.
    Raises ConfigError for an unknown ``source`` or ``anchor``, and for a source of whole groups
    (``group_series`` has those). A source that fails, or gives other than a fraction a step, raises it too.
    """
    check_choice("progress source", source, SOURCES.names())
    check_choice("anchor", anchor, ("none", "clip", "outcome"))
    function = SOURCES.get(source)
    if isinstance(function, GroupSource):
        raise ConfigError(f"The progress source {source!r} needs all rollouts of a task; use group_series.")
    with named_failure(source_owner(source)):
        values = function(trajectory, **(settings or {}))
    if values is None:
        return None
    _check(source, values, trajectory, bounded=True)
    if source == "retrospective" and values and anchor != "none":
        if trajectory.won:
            values[-1] = 1.0
        elif anchor == "clip":
            values = [min(value, FAILURE_CAP) for value in values]
        else:
            values[-1] = min(values[-1], trajectory.score)
    return [0.0, *values]


def group_series(group: Group, source: str, settings: Any) -> list[Series]:
    """P_0..P_T, [T + 1], of each trajectory of the group; ``settings``: the run's ``RewardSettings``.

    Raises ConfigError as ``progress_series`` does.
    """
    check_choice("progress source", source, SOURCES.names())
    function, own = SOURCES.get(source), settings.progress_settings.get(source, {})
    if not isinstance(function, GroupSource):
        return [
            progress_series(trajectory, source, anchor=settings.anchor, settings=own)
            for trajectory in group.trajectories
        ]
    with named_failure(source_owner(source)):
        rows = list(function.series(group, settings, **own))
    if len(rows) != len(group.trajectories):
        raise ConfigError(
            f"The progress source {source!r} gave {len(rows)} series for the {len(group.trajectories)} "
            f"rollouts of {group.task_id}; it must give one a rollout, or None."
        )
    for trajectory, values in zip(group.trajectories, rows, strict=True):
        if values is not None:
            _check(source, values, trajectory, bounded=function.bounded)
    return [None if values is None else [0.0, *values] for values in rows]


def _allowed(value: float, bounded: bool) -> bool:
    return 0 <= value <= 1 if bounded else math.isfinite(value)


def _check(source: str, values: Sequence[Any], trajectory: Trajectory, *, bounded: bool) -> None:
    """Raises ConfigError unless there is one number a step, finite and, where ``bounded``, from 0 to 1."""
    if len(values) != len(trajectory.steps):
        raise ConfigError(
            f"The progress source {source!r} gave {len(values)} values for the {len(trajectory.steps)} steps "
            f"of {trajectory.task_id}; it must give one a step, or None."
        )
    for t, value in enumerate(values, start=1):
        if not isinstance(value, Real) or not _allowed(float(value), bounded):
            raise ConfigError(
                f"The progress source {source!r} gave {value!r} at step {t} of {trajectory.task_id}; "
                f"progress is {'a fraction from 0 to 1' if bounded else 'a finite number'}."
            )
