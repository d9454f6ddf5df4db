"""Read a run folder for the report.

What is absent becomes a note on the page; what is broken raises DataError with the file and the line. The one
exception is a half-written last line of ``metrics.jsonl``, which a run in progress or a killed run leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError, counted
from repro_rl.files import finite, json_lines, read_json, read_rows, read_yaml
from repro_rl.files.names import (
    CONFIG_FILE,
    EVALUATIONS,
    EXPERT_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    RECORDS,
    TRAJECTORIES,
)
from repro_rl.run.evaluations import evaluation_files, evaluation_order, read_evaluation
from repro_rl.run.folder_kind import evaluated_agent
from repro_rl.study.numerals import numbered

Json = dict[str, Any]

# One of them is in the folder of every run that began.
RUN = (CONFIG_FILE, METRICS_FILE, EVALUATIONS, TRAJECTORIES)
# Most of a trajectory file, and never on the page.
PROMPT_FIELDS = ("prompt", "anchor", "brief")

Conditions = tuple[tuple[str, str], ...]  # dotted setting and its value


@dataclass(slots=True)
class Run:
    """A run as the report sees it."""

    path: Path
    method: str
    seed: str
    label: str  # unique among the runs of one report
    config: Json
    manifest: Json
    metrics: list[Json]  # by iteration, each once
    evaluations: list[Json]  # eval/*.json, with "file", in the order they are shown
    trajectory_files: dict[str, Path]  # by name: "iteration 12", "eval warm-start"
    notes: list[str] = field(default_factory=list)

    @property
    def conditions(self) -> Conditions:
        """All settings but the seed and paths: runs that share them are seeds of one arm."""
        from repro_rl.config.changes import PATH_SETTINGS  # loads all settings, which the viewer needs not
        from repro_rl.run.folder import flatten

        settings = flatten(self.config)
        free = ("seed", *PATH_SETTINGS)
        return tuple((key, str(value)) for key, value in sorted(settings.items()) if key not in free)

    def series(self, key: str, x: str = "iteration") -> tuple[list[float], list[float]]:
        """The finite values of one metric against ``x``; two lists of the same length."""
        points = [(row[x], row[key]) for row in self.metrics if finite(row.get(x)) and finite(row.get(key))]
        return [float(a) for a, _ in points], [float(b) for _, b in points]


def read_runs(paths: list[Path]) -> list[Run]:
    """Read every run and make the labels unique. Raises DataError for no run, no folder, a broken file."""
    if not paths:
        raise DataError("No run was given; name at least one run folder.")
    runs = [read_run(path) for path in paths]
    labels = [run.label for run in runs]
    for run in runs:
        if labels.count(run.label) > 1:
            run.label = f"{run.label} · {run.path.resolve().name}"
    for run, label in zip(runs, numbered([run.label for run in runs]), strict=True):
        run.label = label
    return runs


def read_run(path: Path) -> Run:
    """Read one run folder. Raises DataError when it is no folder or holds a broken file."""
    if not path.is_dir():
        raise DataError("No such run folder; give the folder that holds metrics.jsonl.", file=path)
    if (path / EXPERT_FILE).exists() and not any((path / name).exists() for name in RUN):
        raise DataError("It holds demonstrations; give the folder of a warmup or a training.", file=path)
    notes: list[str] = []
    config = _read_config(path / CONFIG_FILE, notes)
    manifest = _read_manifest(path / MANIFEST_FILE, notes)
    method = (
        evaluated_agent(manifest)
        or _name(manifest.get("method"))
        or _name(config.get("method"))
        or "unknown method"
    )
    seed = _seed(config.get("seed")) or _seed(manifest.get("seeds")) or _seed(manifest.get("seed")) or "?"
    metrics = _read_metrics(path / METRICS_FILE, notes)
    evaluations = _read_evaluations(path, notes)
    files = _find_trajectory_files(path / TRAJECTORIES, notes)
    return Run(
        path, method, seed, f"{method} · seed {seed}", config, manifest, metrics, evaluations, files, notes
    )


def read_records(file: Path) -> Iterator[Json]:
    """The records of one ``*.jsonl.gz``, without their prompts. Raises DataError with file and line."""
    for _, record in json_lines(file, packed=True, constants=True):
        yield _without_prompts(record)


def normalised(record: Json) -> Json:
    """``record`` with lists and objects where the schema has them."""
    steps, reflection = record.get("steps"), record.get("reflection")
    record["steps"] = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    record["reflection"] = reflection if isinstance(reflection, dict) else None
    if isinstance(reflection, dict) and not isinstance(reflection.get("values"), list | None):
        reflection["values"] = None
    return record


def _without_prompts(record: Json) -> Json:
    """The ``normalised`` record without its prompts."""
    normalised(record)
    for part in [*record["steps"], record["reflection"] or {}]:
        for key in PROMPT_FIELDS:
            part.pop(key, None)
    return record


def _read_config(file: Path, notes: list[str]) -> Json:
    if not file.exists():
        notes.append("config.yaml is missing.")
        return {}
    return read_yaml(file, dict[str, Any])


def _read_manifest(file: Path, notes: list[str]) -> Json:
    if not file.exists():
        notes.append("manifest.json is missing: versions, panel digests and hardware are unknown.")
        return {}
    return read_json(file)


def _read_metrics(file: Path, notes: list[str]) -> list[Json]:
    if not file.exists():
        notes.append("metrics.jsonl is missing: no curves.")
        return []
    rows: dict[float, Json] = {}
    again = 0
    found = read_rows(file).check()
    if found.unfinished is not None:
        notes.append(f"metrics.jsonl: line {found.unfinished}, the last, is half-written and was left out.")
    for row in found.rows:
        again += row["iteration"] in rows
        rows[float(row["iteration"])] = row
    if again:
        notes.append(
            f"metrics.jsonl: {counted(again, 'iteration')} written twice (a resumed run); the later line "
            "counts."
        )
    if not rows:
        notes.append("metrics.jsonl holds no iteration yet.")
    return [rows[key] for key in sorted(rows)]


def _read_evaluations(run: Path, notes: list[str]) -> list[Json]:
    rows = []
    for file in evaluation_files(run):
        row = read_evaluation(file)
        row["file"] = file.name
        row["name"] = str(row.get("name") or file.stem)
        rows.append(row)
    if not rows:
        notes.append("eval/ holds no evaluation: no figures with intervals.")
    rows.sort(key=lambda row: (evaluation_order(row["name"]), _number(row.get("iteration")), row["file"]))
    return rows


def file_title(stem: str) -> str:
    """What people call a trajectory file: "iteration 12", "eval best"."""
    match = re.fullmatch(r"iteration-(\d+)", stem)
    return f"iteration {int(match[1])}" if match else re.sub(r"^eval-", "eval ", stem)


def _find_trajectory_files(folder: Path, notes: list[str]) -> dict[str, Path]:
    files = {}
    for file in sorted(folder.glob(f"*{RECORDS}")):
        stem = file.name.removesuffix(RECORDS)
        files[file_title(stem)] = file
    if not files:
        notes.append("trajectories/ holds no file: nothing to browse.")
    return files


def _number(value: Any) -> float:
    return float(value) if finite(value) else -1.0


def _name(value: Any) -> str:
    """A method is a name, or a mapping that holds one."""
    if isinstance(value, dict):
        value = value.get("name")
    return value if isinstance(value, str) else ""


def _seed(value: Any) -> str:
    """A seed is a number, or a mapping of purposes to numbers of which "train" or "run" is the run's own."""
    if isinstance(value, dict):
        for key in ("train", "training", "run", "seed"):
            if key in value:
                return _seed(value[key])
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
