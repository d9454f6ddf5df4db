"""The panels of a run: the tasks it is evaluated on, and checks of them before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum

from repro_rl.config import EvalSection, RunConfig, TrainSection, WarmupSection
from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.panel_file import read_panel
from repro_rl.errors import ConfigError, DataError, PreflightError, TaskError, counted

# Two splits that should have no task in common, and what it means where they do.
OVERLAPS = (
    ("eval.split", "train.split", "success on tasks of the training is no success on new ones"),
    ("eval.split", "demos.split", "the model was shown how these tasks are solved"),
    (
        "eval.split",
        "eval.validation_split",
        "the best checkpoint is chosen on the tasks that it is evaluated on, which flatters it",
    ),
    ("eval.validation_split", "train.split", "checkpoints are chosen on the tasks that they were trained on"),
    (
        "eval.validation_split",
        "demos.split",
        "checkpoints are chosen on tasks whose solutions the model was shown",
    ),
)
PanelOf = Callable[[str], TaskPanel]  # ``TextEnv.panel``


class Use(StrEnum):
    """What a command plays tasks for."""

    DEMOS = "demos"
    TRAIN = "train"
    VALIDATION = "validation"
    EVAL = "eval"


def eval_panel(section: EvalSection, panel: PanelOf) -> TaskPanel:
    """The tasks that models are evaluated on: those of ``eval.panel``, else the first of ``eval.split``.

    Raises TaskError, naming the setting, for an unknown split and a panel that is too small; DataError for a
    broken panel file, and one whose tasks are not this environment's.
    """
    if section.panel is None:
        return sized_panel(panel, section.split, section.tasks, "eval.split", "eval.tasks")
    wanted = read_panel(section.panel)
    try:
        there = panel(wanted.split)
    except TaskError as error:
        raise TaskError(
            f"eval.panel: {section.panel} holds tasks of {wanted.label()}; this environment says: {error}"
        ) from error
    contents = dict(zip(there.ids, there.contents, strict=True))
    for task, content in zip(wanted.ids, wanted.contents, strict=True):
        if contents.get(task) != content:
            what = "other content" if task in contents else "no such task"
            raise TaskError(
                f"eval.panel: {section.panel} holds {wanted.label()}, but for {task!r} this environment "
                f"({there.label()}) has {what}. Use the env.settings and data that the file was made with."
            )
    if wanted.env != there.env:
        raise TaskError(
            f"eval.panel: {section.panel} is of {wanted.env}, not of {there.env}; set env.name, or give a "
            "panel of this environment."
        )
    return wanted


def validation_panel(section: EvalSection, panel: PanelOf) -> TaskPanel:
    """The tasks that settings and checkpoints are chosen on. Raises TaskError naming the setting."""
    names = ("eval.validation_split", "eval.validation_tasks")
    return sized_panel(panel, section.validation_split, section.validation_tasks, *names)


def sized_panel(panel: PanelOf, split: str, tasks: int, split_setting: str, tasks_setting: str) -> TaskPanel:
    """The first ``tasks`` of a split. Raises TaskError naming the setting that is wrong."""
    whole = split_panel(panel, split, split_setting)
    if tasks > len(whole):
        there = len(whole)
        advice = f"set {tasks_setting}={there} or less" if there else f"choose another {split_setting}"
        raise TaskError(
            f"{tasks_setting} is {tasks}, but the split {split!r} has {counted(there, 'task')}; {advice}."
        )
    return whole.head(tasks)


def split_panel(panel: PanelOf, split: str, setting: str) -> TaskPanel:
    """All tasks of a split. Raises TaskError, naming the setting, where there is no such split.

    So it does ConfigError, where the environment's own code fails.
    """
    try:
        return panel(split)
    except (TaskError, ConfigError) as error:
        raise type(error)(f"{setting}: {error}") from error


def check_panels(config: RunConfig, panel: PanelOf, now: Collection[Use]) -> list[str]:
    """The panels of a command before it spends anything; ``now``: what it plays tasks for.

    Raises TaskError, DataError or PreflightError for a panel that is needed now and is not there, empty, too
    small or not this environment's. Returns, each as a sentence, what cannot be meant, and what a later
    evaluation would lack.
    """
    found = eval_contradictions(config)
    panels: dict[str, TaskPanel] = {}  # by the setting that names them
    if Use.DEMOS in now:
        panels["demos.split"] = _filled_panel(panel, config.demos.split, "demos.split")
    if Use.TRAIN in now:
        panels["train.split"] = _filled_panel(panel, config.train.split, "train.split")
        found += _few_tasks(config.train, len(panels["train.split"]))
    if Use.VALIDATION in now:
        panels["eval.validation_split"] = validation_panel(config.eval, panel)
    try:
        name = "eval.split" if config.eval.panel is None else "eval.panel"
        panels[name] = eval_panel(config.eval, panel)
    except (TaskError, DataError, ConfigError) as error:
        if Use.EVAL in now:
            raise
        found.append(f"'repro-rl eval' of this run will fail: {error}")
    return found + overlaps(panels)


def training_uses(train: TrainSection) -> frozenset[Use]:
    """What an RL run of these settings plays tasks for: TRAIN, and VALIDATION where it validates."""
    return frozenset({Use.TRAIN, Use.VALIDATION} if train.validate_every else {Use.TRAIN})


def warmup_validates(warmup: WarmupSection) -> frozenset[Use]:
    """VALIDATION where a warmup of these settings validates; else nothing."""
    return frozenset({Use.VALIDATION} if warmup.target_success is not None else ())


def _filled_panel(panel: PanelOf, split: str, setting: str) -> TaskPanel:
    """All tasks of a split. Raises TaskError for an unknown one, PreflightError for one without tasks."""
    found = split_panel(panel, split, setting)
    if not len(found):
        raise PreflightError(
            f"The panel {found.label()} ({setting}={split}) has no tasks with these settings of the "
            "environment; a small catalogue with env.settings.splits=position leaves none, for example."
        )
    return found


def _few_tasks(train: TrainSection, there: int) -> list[str]:
    if there >= train.groups:
        return []
    return [
        f"train.groups is {train.groups}, but the split {train.split!r} has {counted(there, 'task')}, so an "
        "iteration plays some of them more than once."
    ]


def overlaps(panels: dict[str, TaskPanel]) -> list[str]:
    """Sentences on tasks that are in two of these panels, which are named by their settings.

    Splits of one name are left to ``eval_contradictions``. Tasks are the same where their contents are.
    """
    found = []
    if "eval.panel" in panels:
        panels = {"eval.split": panels["eval.panel"], **panels}
    for one, other, effect in OVERLAPS:
        if one not in panels or other not in panels:
            continue
        a, b = panels[one], panels[other]
        from_file = one == "eval.split" and "eval.panel" in panels
        if a.split == b.split and not from_file:
            continue
        if shared := len(a.shared(b)):
            what = "eval.panel" if from_file else f"{one} {a.split!r}"
            found.append(
                f"{shared} of the {len(a)} tasks of {what} are also in {other} {b.split!r}: {effect}."
            )
    return found


def eval_contradictions(config: RunConfig) -> list[str]:
    """What the settings of evaluations say that cannot be meant, each as a sentence. Looks at no task."""
    section, warmup = config.eval, config.warmup
    checks = (
        (
            section.rollouts > 1 and section.temperature == 0,
            f"eval.rollouts is {section.rollouts}, but at eval.temperature=0 all rollouts of a task are the "
            "same: set eval.rollouts=1, or a temperature",
        ),
        (
            warmup.target_success is not None
            and warmup.updates < next_check(warmup.forward_from, warmup.check_every),
            f"warmup.target_success is {warmup.target_success}, but of {warmup.updates} updates none is "
            f"checked (warmup.check_every={warmup.check_every}, forward_from={warmup.forward_from})",
        ),
    )
    return [*(f"{text}." for wrong, text in checks if wrong), *_same_splits(config)]


def _same_splits(config: RunConfig) -> list[str]:
    """A sentence for each pair of OVERLAPS that has one split; demonstrations of the training's add none."""
    splits = {
        # A panel's file decides by its tasks.
        "eval.split": None if config.eval.panel is not None else config.eval.split,
        "eval.validation_split": config.eval.validation_split,
        "train.split": config.train.split,
        "demos.split": config.demos.split if config.demos.split != config.train.split else None,
    }
    return [
        f"{one} and {other} are both {splits[one]!r}: {effect}."
        for one, other, effect in OVERLAPS
        if splits[one] is not None and splits[one] == splits[other]
    ]


def next_check(begin: int, every: int) -> int:
    """The first multiple of ``every`` after ``begin``."""
    return (begin // every + 1) * every
