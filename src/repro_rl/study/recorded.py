"""Recorded episodes: what the analysis of the progress signal needs of each, and where they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repro_rl.credit.settings import CreditSettings
from repro_rl.errors import DataError
from repro_rl.files import read_json_if_any, read_yaml
from repro_rl.files.names import CONFIG_FILE, MANIFEST_FILE, RECORDS, TRAJECTORIES
from repro_rl.rollout.record import episodes_file, or_nan, read_trajectories, training_files
from repro_rl.run.evaluations import evaluation_file, evaluation_order, read_evaluation
from repro_rl.run.folder_kind import evaluated_agent
from repro_rl.study.numerals import numbered
from repro_rl.study.series import SERIES, EpisodeProgress

TRAINING = "training"
# Of the step part, where a run's settings give none: runs of every version had this default.
GAMMA: float = CreditSettings.model_fields["gamma"].default


@dataclass(slots=True)
class RecordedEpisode:
    """One finished episode of T steps."""

    task: str
    group: str  # the rollouts that one advantage compares
    won: bool
    series: dict[str, EpisodeProgress]  # by SERIES
    anchors: list[str]  # [T]
    env: list[float]  # [T], environment reward
    composite: list[float] | None  # [T], all reward terms; None outside training
    advantage: list[float] | None  # [T], as trained; None outside training


@dataclass(slots=True, frozen=True)
class RunSettings:
    """What the analysis needs of a run's ``config.yaml``."""

    method: str = "unknown method"
    seed: str = "?"
    gamma: float = GAMMA
    group_size: int | None = None
    excluded: frozenset[str] = frozenset()  # reward terms that no step return holds
    notes: tuple[str, ...] = ()  # what was assumed


@dataclass(slots=True)
class EpisodeSet:
    """Episodes that are measured together: one evaluation of a run, or its training."""

    run: str
    name: str  # such as "eval last" or "training"
    files: list[Path]
    settings: RunSettings = field(default_factory=RunSettings)
    panel: str = ""  # label of the tasks; the environment's settings where no file names them

    @property
    def training(self) -> bool:
        return self.name == TRAINING


def find_episode_sets(
    paths: Sequence[Path], evals: Sequence[str] = (), *, training: bool = True
) -> list[EpisodeSet]:
    """The sets of episodes in run folders and single ``*.jsonl.gz`` files.

    ``evals``: names of evaluations, in this order; without any, all that a run has. ``training``: also the
    recorded training episodes, all iterations together. Raises DataError for a path that is neither, for a
    named evaluation that no run has, and when nothing is found.
    """
    sets: list[EpisodeSet] = []
    for path in paths:
        if not path.exists():
            raise DataError("no such run folder or trajectory file.", file=path)
    names = [path.name.removesuffix(RECORDS) if path.is_file() else path.resolve().name for path in paths]
    for path, run in zip(paths, numbered(names), strict=True):
        if path.is_file():
            sets.append(EpisodeSet(run, "file", [path], RunSettings("–", "–")))
        else:
            sets += _sets_of_run(path, run, evals, training=training)
    for name in evals:
        if not any(item.name == f"eval {name}" for item in sets):
            raise DataError(
                f"no run here has episodes of an evaluation {name!r}; run 'repro-rl eval' with --name {name}."
            )
    if not sets:
        raise DataError(
            "no recorded episodes here; run 'repro-rl eval' first.", file=paths[0] if paths else None
        )
    return sets


def _sets_of_run(path: Path, run: str, evals: Sequence[str], *, training: bool) -> list[EpisodeSet]:
    folder, config = path / TRAJECTORIES, path / CONFIG_FILE
    data = read_yaml(config, dict[str, Any]) if config.exists() else None
    settings, environment = _run_settings(data), _environment(data or {})
    manifest = _manifest(path)
    settings = replace(settings, method=evaluated_agent(manifest) or settings.method)
    sets = [
        EpisodeSet(run, f"eval {name}", [file], settings, _evaluated_panel(path, name) or environment)
        for name in evals or _evaluations(folder)
        if (file := episodes_file(path, name)).exists()
    ]
    files = training_files(path) if training else []
    if files:
        panel = _training_panel(manifest) or environment
        sets.append(EpisodeSet(run, TRAINING, files, settings, panel))
    return sets


def read_episodes(episode_set: EpisodeSet) -> list[RecordedEpisode]:
    """The finished episodes of a set; broken ones and those without a step are left out.

    Raises DataError for a file that cannot be read.
    """
    return [
        episode
        for file in episode_set.files
        for record in read_trajectories(file)
        if (episode := recorded_episode(record, episode_set, file)) is not None
    ]


def recorded_episode(
    record: Mapping[str, Any], episode_set: EpisodeSet, file: Path | None = None
) -> RecordedEpisode | None:
    """One record, reduced to what is measured. None when it broke off or has no step.

    Raises DataError for what is no record.
    """
    if not isinstance(record, dict):
        raise DataError("expected one object a line, a trajectory record.", file=file)
    steps = record.get("steps") or []
    if record.get("error") or not steps:
        return None
    task = str(record.get("task_id", "?"))
    settings = episode_set.settings
    try:
        terms = [step.get("terms") or {} for step in steps]
        trained = episode_set.training and all(terms)
        return RecordedEpisode(
            task=task,
            group=_group(record, task, settings.group_size) if episode_set.training else task,
            won=bool(record.get("won")),
            series={which: EpisodeProgress.of(record, which) for which in SERIES},
            anchors=[str(step.get("anchor", "")) for step in steps],
            env=[float(step.get("env_reward") or 0.0) for step in steps],
            composite=[
                sum(or_nan(row[name]) for name in row if name not in settings.excluded) for row in terms
            ]
            if trained
            else None,
            advantage=[or_nan(step["advantage"]) for step in steps] if trained else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"an episode of task {task!r} is no trajectory record ({type(error).__name__}: {error}).",
            file=file,
        ) from error


def clusters(episodes: Iterable[RecordedEpisode]) -> tuple[list[str | int], str]:
    """What is resampled, one name an episode, and what it is called: tasks where one has several episodes."""
    tasks = [episode.task for episode in episodes]
    if len(set(tasks)) < len(tasks):
        return list(tasks), "tasks"
    return list(range(len(tasks))), "episodes"


def _group(record: Mapping[str, Any], task: str, group_size: int | None) -> str:
    """The training group of an episode; a task may be drawn twice in an iteration."""
    group, rollout = f"{record.get('iteration', 0)}/{task}", record.get("rollout")
    return f"{group}/{rollout // group_size}" if group_size and isinstance(rollout, int) else group


def _evaluated_panel(run: Path, name: str) -> str:
    """The panel of an evaluation; "" where its file is missing or names none."""
    file = evaluation_file(run, name)
    try:
        result = read_evaluation(file) if file.exists() else {}
    except DataError:  # the episodes are what is analysed
        return ""
    return str(result.get("panel") or result.get("digest") or "")


def _manifest(run: Path) -> dict[str, Any]:
    """manifest.json; empty where it is missing or broken, as the episodes are what is analysed."""
    try:
        return read_json_if_any(run / MANIFEST_FILE)
    except DataError:
        return {}


def _training_panel(manifest: Mapping[str, Any]) -> str:
    """The panel that a run trained on; "" where its manifest is empty or names none."""
    panels = manifest.get("panels")
    panel = panels.get("train") if isinstance(panels, dict) else None
    return str(panel.get("label") or "") if isinstance(panel, dict) else ""


def _environment(config: Mapping[str, Any]) -> str:
    """Name and settings of a run's environment, as text; "" where its config.yaml gives none."""
    section = config.get("env")
    if not isinstance(section, dict):
        return str(section or "")
    name, settings = str(section.get("name", "")), section.get("settings")
    return f"{name} {json.dumps(settings, sort_keys=True, default=str)}" if settings else name


def _run_settings(data: Mapping[str, Any] | None) -> RunSettings:
    """The settings in config.yaml; None where it is missing, which costs a note, as an older one does."""
    if data is None:
        return RunSettings(notes=(f"config.yaml is missing: a discount of {GAMMA} is assumed.",))
    method, train = data.get("method"), data.get("train")
    method = method if isinstance(method, dict) else {"name": method}
    size = train.get("group_size") if isinstance(train, dict) else None
    settings = RunSettings(
        method=str(method.get("name") or "unknown method"),
        seed=str(data.get("seed", "?")),
        group_size=size if isinstance(size, int) and size > 0 else None,
        excluded=frozenset({"alignment"} if method.get("advantage_on") == "split" else ()),
    )
    gamma = method.get("gamma")
    if isinstance(gamma, int | float) and 0 <= gamma <= 1:
        return replace(settings, gamma=float(gamma))
    note = f"config.yaml gives no method.gamma: a discount of {GAMMA} is assumed."
    return replace(settings, notes=(note,))


def _evaluations(folder: Path) -> list[str]:
    """The evaluations of a run: the start first, best and last at the end."""
    names = [
        file.name.removeprefix("eval-").removesuffix(RECORDS) for file in folder.glob(f"eval-*{RECORDS}")
    ]
    return sorted(names, key=lambda name: (evaluation_order(name), name))
