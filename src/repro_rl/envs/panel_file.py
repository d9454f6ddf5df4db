"""Panels as files, which others can evaluate on: task ids, their contents, and the digest over both.

JSON: one object, its tasks in ``tasks``. JSON Lines (``*.jsonl``): the object without its tasks on the first
line, then one line a task.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.envs.base import TextEnv
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import DataError
from repro_rl.files import check_record, parse_object, read_text, write_text

FORMAT = "repro-rl panel 1"


class _Task(TypedDict):
    """One task of a panel file, as far as it is read back."""

    id: str  # task id
    content: str  # canonical text of the task; input of the digest


class _Head(TypedDict):
    """The head of a panel file, as far as it is read back; ``describe_panel`` writes it."""

    format: str  # ``FORMAT``
    panel_env: str  # environment name that counts in the digest
    split: str
    size: int  # number of tasks
    digest: str  # sha256 over environment name, ids and contents


class _Tasks(TypedDict):
    """The tasks in a panel file of one JSON object."""

    tasks: list[dict[str, Any]]


def describe_panel(env: TextEnv, panel: TaskPanel) -> dict[str, Any]:
    """What identifies a panel of ``env``, and how many tasks of each type it has; the head of its file.

    ``types`` is empty where tasks have no types, or the data behind them are not at hand.
    """
    kinds = Counter(kind for task in panel.ids if (kind := env.task_type(task)) is not None)
    return {
        "format": FORMAT,
        "env": env.name,
        "panel_env": panel.env,
        "split": panel.split,
        "size": len(panel),
        "digest": panel.digest,
        "label": panel.label(),
        "types": dict(sorted(kinds.items())),
        "data": env.describe(),
    }


def write_panel(path: Path, env: TextEnv, panel: TaskPanel, settings: dict[str, Any]) -> None:
    """Write a panel of ``env`` into a ``.json`` or ``.jsonl`` file; ``settings``: the environment's."""
    head = {**describe_panel(env, panel), "settings": settings}
    tasks = [
        {"id": task, "type": env.task_type(task), "content": content}
        for task, content in zip(panel.ids, panel.contents, strict=True)
    ]
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in (head, *tasks))
    else:
        text = json.dumps({**head, "tasks": tasks}, ensure_ascii=False, indent=1) + "\n"
    write_text(path, text)


def read_panel(path: Path) -> TaskPanel:
    """The panel in a file. Raises DataError for one that is broken, or whose tasks are not those it names."""
    head, tasks = _read_lines(path) if path.suffix == ".jsonl" else _read_object(path)
    about = check_record(_Head, head, file=path)
    if about["format"] != FORMAT:
        raise DataError(f"is no {FORMAT!r}", file=path, field="format")
    rows = [check_record(_Task, task, file=path, record=f"task {i}") for i, task in enumerate(tasks)]
    ids = tuple(row["id"] for row in rows)
    if not ids:
        raise DataError("has no tasks", file=path)
    twice = [task for task, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"has the task {twice[0]!r} twice", file=path)
    panel = TaskPanel(about["panel_env"], about["split"], ids, tuple(row["content"] for row in rows))
    if (panel.digest, len(panel)) != (about["digest"], about["size"]):
        raise DataError(
            f"has {len(panel)} tasks with digest {panel.digest[:12]}, but says {about['size']} with "
            f"{about['digest'][:12]}; it was edited or cut off, so export it again",
            file=path,
        )
    return panel


def _read_object(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    data = parse_object(read_text(path), file=path)
    return data, check_record(_Tasks, data, file=path)["tasks"]


def _read_lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    records = [parse_object(line, file=path, record=f"line {number}") for number, line in enumerate(lines, 1)]
    if not records:
        raise DataError("is empty", file=path)
    return records[0], records[1:]
