"""Recorded episodes, slim: what the analysis of the progress signal needs of each, and where it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from repro_rl.errors import DataError
from repro_rl.rollout.record import read_trajectories
from repro_rl.study.progress import EpisodeProgress, Which

SERIES: tuple[Which, ...] = ("online", "retrospective", "truth")
TRAINING = "training"
GAMMA = 0.95  # where a run's settings are not known (CreditSettings)


@dataclass(slots=True)
class Judged:
    """One finished episode of T steps."""

    task: str
    group: str  # the rollouts that one advantage compares
    won: bool
    series: dict[str, EpisodeProgress]  # by SERIES
    anchors: list[str]  # [T]
    env: list[float]  # [T], environment reward
    composite: list[float] | None  # [T], all reward terms; None outside training
    advantage: list[float] | None  # [T], as trained; None outside training


@dataclass(slots=True)
class Source:
    """One set of episodes that is measured together."""

    run: str
    method: str
    seed: str
    name: str  # such as "eval last" or "training"
    files: list[Path]
    gamma: float = GAMMA
    group_size: int | None = None
    excluded: frozenset[str] = field(default_factory=frozenset)  # reward terms that no step return holds
    notes: list[str] = field(default_factory=list)

    @property
    def training(self) -> bool:
        return self.name == TRAINING


def find_sources(paths: Sequence[Path], evals: Sequence[str] = (), *, training: bool = True) -> list[Source]:
    """The sets of episodes in run folders and single ``*.jsonl.gz`` files.

    ``evals``: names of evaluations, in this order; without any, all that a run has. ``training``: also the
    recorded training episodes, all iterations together. Raises DataError for a path that is neither, for a
    named evaluation that no run has, and when nothing is found.
    """
    found: list[Source] = []
    labels: dict[str, int] = {}
    for path in paths:
        if not path.exists():
            raise DataError("no such run folder or trajectory file.", file=path)
        if path.is_file():
            found.append(
                Source(_unique(path.name.removesuffix(".jsonl.gz"), labels), "–", "–", "file", [path])
            )
            continue
        run, folder = _unique(path.resolve().name, labels), path / "trajectories"
        settings = _settings(path / "config.yaml")
        for name in evals or _names(folder):
            file = folder / f"eval-{name}.jsonl.gz"
            if file.exists():
                found.append(Source(run, settings.method, settings.seed, f"eval {name}", [file]))
        files = sorted(folder.glob("iteration-*.jsonl.gz")) if training else []
        if files:
            found.append(Source(run, settings.method, settings.seed, TRAINING, files))
        for source in found:
            if source.run == run:
                source.gamma, source.group_size = settings.gamma, settings.group_size
                source.excluded, source.notes = settings.excluded, list(settings.notes)
    for name in evals:
        if not any(source.name == f"eval {name}" for source in found):
            raise DataError(
                f"no run here has episodes of an evaluation {name!r}; run 'repro-rl eval' with --name {name}."
            )
    if not found:
        raise DataError(
            "no recorded episodes here; run 'repro-rl eval' first.", file=paths[0] if paths else None
        )
    return found


def read_episodes(source: Source) -> list[Judged]:
    """The finished episodes of a source; broken ones and those without a step are left out.

    Raises DataError for a file that cannot be read.
    """
    return [
        episode
        for file in source.files
        for record in read_trajectories(file)
        if (episode := judged(record, source, file)) is not None
    ]


def judged(record: Mapping[str, Any], source: Source, file: Path | None = None) -> Judged | None:
    """One record, slim. None when it broke off or has no step. Raises DataError for what is no record."""
    if not isinstance(record, dict):
        raise DataError("expected one object a line, a trajectory record.", file=file)
    steps = record.get("steps") or []
    if record.get("error") or not steps:
        return None
    task, iteration, rollout = (
        str(record.get("task_id", "?")),
        record.get("iteration", 0),
        record.get("rollout"),
    )
    group = task
    if source.training:
        group = f"{iteration}/{task}"
        if source.group_size and isinstance(rollout, int):  # a task may be drawn twice in an iteration
            group += f"/{rollout // source.group_size}"
    try:
        terms = [step.get("terms") or {} for step in steps]
        trained = source.training and all(terms)
        return Judged(
            task,
            group,
            bool(record.get("won")),
            {which: EpisodeProgress(record, which) for which in SERIES},
            [str(step.get("anchor", "")) for step in steps],
            [float(step.get("env_reward") or 0.0) for step in steps],
            [_kept(row, source.excluded) for row in terms] if trained else None,
            [float(step["advantage"]) for step in steps] if trained else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"an episode of task {task!r} is no trajectory record ({type(error).__name__}: {error}).",
            file=file,
        ) from error


def clusters(episodes: Iterable[Judged]) -> tuple[list[str | int], str]:
    """What is resampled, one name an episode, and what it is called: tasks where one has several episodes."""
    tasks = [episode.task for episode in episodes]
    if len(set(tasks)) < len(tasks):
        return list(tasks), "tasks"
    return list(range(len(tasks))), "episodes"


@dataclass(slots=True)
class _Settings:
    method: str = "unknown method"
    seed: str = "?"
    gamma: float = GAMMA
    group_size: int | None = None
    excluded: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


def _settings(file: Path) -> _Settings:
    """What config.yaml tells; an older or missing one costs a note, not the analysis."""
    if not file.exists():
        return _Settings(notes=[f"config.yaml is missing: a discount of {GAMMA} is assumed."])
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"not readable as YAML: {error}", file=file) from error
    data = data if isinstance(data, dict) else {}
    method, train = data.get("method"), data.get("train")
    method = method if isinstance(method, dict) else {"name": method}
    size = train.get("group_size") if isinstance(train, dict) else None
    known = _Settings(str(method.get("name") or "unknown method"), str(data.get("seed", "?")))
    known.group_size = size if isinstance(size, int) and size > 0 else None
    if isinstance(method.get("gamma"), int | float) and 0 <= method["gamma"] <= 1:
        known.gamma = float(method["gamma"])
    else:
        known.notes = [f"config.yaml gives no method.gamma: a discount of {GAMMA} is assumed."]
    if method.get("advantage_on") == "split":
        known.excluded = frozenset({"alignment"})
    return known


def _names(folder: Path) -> list[str]:
    """The evaluations of a run: the start first, best and last at the end."""
    names = [
        file.name.removeprefix("eval-").removesuffix(".jsonl.gz") for file in folder.glob("eval-*.jsonl.gz")
    ]
    rank = {"warm-start": -1, "best": 1, "last": 2}
    return sorted(names, key=lambda name: (rank.get(name, 0), name))


def _kept(terms: Mapping[str, float], excluded: frozenset[str]) -> float:
    return sum(float(value) for name, value in terms.items() if name not in excluded)


def _unique(label: str, labels: dict[str, int]) -> str:
    labels[label] = labels.get(label, 0) + 1
    return label if labels[label] == 1 else f"{label} ({labels[label]})"
