"""Tasks of one split that are also in another: success on them is no success on new tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from repro_rl.envs.checks import Doubt, FailedCheck
from repro_rl.envs.meaning import Seen
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import counted, some

LOOKED = 50  # tasks of another split whose first states are looked at


def shared_tasks(
    panel: TaskPanel, others: Sequence[TaskPanel], begin: Callable[[str], Seen], count: int
) -> str:
    """Whether tasks of ``panel`` are in ``others``: by id, by content, or by how their first ``count`` begin.

    ``begin`` resets the environment to a task. First states are compared only where they tell the tasks of
    the panel apart. Raises FailedCheck for one id of two contents, and Doubt for tasks that are shared.
    """
    if not others:
        return f"{panel.split!r} is the only split"
    contents = dict(zip(panel.ids, panel.contents, strict=True))
    for other in others:
        for task, content in zip(other.ids, other.contents, strict=True):
            if contents.get(task, content) != content:
                raise FailedCheck(
                    f"the id {task!r} stands for one task in {panel.split!r} and another in {other.split!r}; "
                    "an id must name one task"
                )
        if same := panel.shared(other):
            raise Doubt(
                f"{other.split!r} has {len(same)} of the {counted(len(panel), 'task')} of {panel.split!r} "
                f"too, with the same content ({some(same)}): success on them is no success on new tasks"
            )
    own = [_start(begin(task)) for task in panel.ids[:count]]
    if len(own) < 2 or len(set(own)) < len(own):
        return f"no id or content of {panel.split!r} is in {_names(others)}"
    tasks = dict(zip(own, panel.ids, strict=False))
    for other in others:
        for task in other.ids[:LOOKED]:
            start = _start(begin(task))
            if start in tasks:
                raise Doubt(
                    f"{tasks[start]} of {panel.split!r} begins as {task} of {other.split!r}, with the same "
                    "goal and observation: are they one task, whose contents in the panel differ?"
                )
    return (
        f"no id or content of {panel.split!r} is in {_names(others)}, and none of {len(own)} first states is "
        f"among those of up to {LOOKED} tasks there"
    )


def _start(seen: Seen) -> tuple[str, str]:
    return seen.info["goal"], seen.observation


def _names(panels: Sequence[TaskPanel]) -> str:
    return " or ".join(repr(panel.split) for panel in panels)
