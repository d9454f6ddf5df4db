"""A run folder: resolved config, manifest, metrics, and the rules for continuing one."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig, dump_config
from repro_rl.config.changes import Change, change_lines, differences, same_places
from repro_rl.config.memory_settings import MEMORY_SETTINGS, continued_sentence, has_dropout, why_fixed
from repro_rl.config.paths import base_entry, base_of, read_run_settings, rebased
from repro_rl.config.trust import signed_config
from repro_rl.errors import ConfigError, DataError
from repro_rl.files import (
    LOCK_FILE,
    Rows,
    append_line,
    check_record,
    only_writer,
    read_bytes,
    read_json_if_any,
    read_rows,
    remove_folder,
    sweep_temporaries,
    write_bytes,
    write_json,
    write_text,
)
from repro_rl.files.names import (
    CHECKPOINTS,
    CONFIG_FILE,
    EVALUATIONS,
    MANIFEST_FILE,
    METRICS_FILE,
    TRAJECTORIES,
)
from repro_rl.interrupts import deferred
from repro_rl.run.folder_kind import KIND, Kind, check_kind
from repro_rl.run.templates import check_same_templates, prompt_digests

UNREADABLE = "metrics.unreadable.jsonl"  # rows of metrics.jsonl that were damaged
PACKAGES = ("repro-rl", "torch", "transformers", "accelerate", "tokenizers", "gymnasium", "numpy")
COMPUTING = ("repro-rl", "torch", "transformers")  # those of them that play an evaluation
INITIAL = "initial"  # in a warmup's folder: the tiny model before any training
# What a run has done, as far as its settings must explain it. Stages inside have settings of their own.
WORK = (METRICS_FILE, CHECKPOINTS, "model", EVALUATIONS, TRAJECTORIES, "data")
VERL_OVERRIDES = "verl_overrides"  # in manifest.json: what a start gave verl beside its settings
OF_EACH_START = ("started", "git", "versions", VERL_OVERRIDES)  # in "continued" of manifest.json
PARTS = (CHECKPOINTS, EVALUATIONS, TRAJECTORIES, "data")  # folders in which files are replaced


def manifest(config: RunConfig, kind: Kind, **more: Any) -> dict[str, Any]:
    """What is needed to say where a number came from. No host name, no user, no paths."""
    return {
        KIND: kind,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "method": config.method.name,
        "context": config.prompt.context,
        **prompt_digests(config.prompt, config.method.reflect),
        "versions": versions(),
        "git": git_revision(),
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            **accelerators(),
        },
        **more,
    }


def accelerators() -> dict[str, Any]:
    """``threads`` that torch uses and the first ``gpu``; nothing where torch is not installed."""
    if find_spec("torch") is None:
        return {}
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"threads": torch.get_num_threads(), "gpu": gpu}


def versions() -> dict[str, str | None]:
    """Python's and those of the packages that a figure may depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def computed_with() -> dict[str, str | None]:
    """The versions of what computes the figures of an evaluation; None where one is not installed."""
    return {name: _version(name) for name in COMPUTING}


def git_revision() -> str | None:
    """Revision of the source tree this package runs from; None when installed or outside git."""
    try:
        with deferred():  # git may not outlive this process
            done = subprocess.run(
                ["git", "describe", "--always", "--dirty", "--abbrev=12"],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def open_run(folder: Path, config: RunConfig, free: tuple[str, ...] = (), kind: Kind = "training") -> bool:
    """``check_run``, then ``begin_run``, where work begins at once. Returns what ``check_run`` does."""
    continues = check_run(folder, config, free, kind)
    begin_run(folder, config, continues)
    return continues


def check_run(folder: Path, config: RunConfig, free: tuple[str, ...] = (), kind: Kind = "training") -> bool:
    """Whether ``folder`` already holds a run of the same settings, which then continues. Writes nothing.

    Settings bind once work was done in the folder: a start that failed leaves it free for others. ``free``
    names dotted settings and sections that may differ on a continuation: they decide when to stop, or belong
    to other commands. The section ``api`` always may: no training asks a server. So may ``MEMORY_SETTINGS``,
    with a warning, where an adapter has no dropout.
    Raises ConfigError naming the settings that differ otherwise, for prompt templates that were changed
    since, and for a folder that holds something else than ``kind``.
    """
    check_kind(folder, kind)
    path = folder / CONFIG_FILE
    if not path.exists():
        if any(_is_filled(folder / name) for name in (METRICS_FILE, CHECKPOINTS)):
            raise ConfigError(
                f"{folder} holds what a run has done, but not its settings ({path.name} is missing); put "
                "them back to continue it, or use another folder."
            )
        return False
    old = flatten(read_run_settings(path))
    if not has_work(folder):
        if not set(RunConfig.model_fields) <= {key.partition(".")[0] for key in old}:
            raise ConfigError(f"{path} is not the settings of a run; use another folder.")
        return False
    changes = _changed(old, config, (*free, "api"))
    fixed = has_dropout(config.policy)
    if changed := [change for change in changes if fixed or change[0] not in MEMORY_SETTINGS]:
        raise ConfigError(
            f"{folder} holds a run with other settings:\n{change_lines(changed)}\n"
            f"{why_fixed(name for name, _, _ in changed)}"
            "Use another folder, or the same settings to continue."
        )
    if changes:
        warnings.warn(continued_sentence(folder, changes), stacklevel=3)
    before = read_json_if_any(folder / MANIFEST_FILE)
    check_same_templates(folder, config.prompt, before, config.method.reflect)
    return True


def writing_run(folder: Path) -> AbstractContextManager[int | None]:
    """The lock that a training holds on its run folder. Raises PreflightError when another process has it."""
    return only_writer(folder / LOCK_FILE, "training")


def has_work(folder: Path) -> bool:
    """Whether a run has done anything in ``folder`` that its settings must explain."""
    return any(_is_filled(folder / name) for name in WORK)


def _is_filled(path: Path) -> bool:
    """Whether there is a file with content, or a folder with any file that is not hidden."""
    if path.is_dir():
        return any(not item.name.startswith(".") for item in path.iterdir())
    return path.is_file() and path.stat().st_size > 0


def begin_run(folder: Path, config: RunConfig, continues: bool) -> None:
    """Write the settings, and remove what killed commands left half-written and failed starts left behind."""
    for part in (folder, *(folder / name for name in PARTS)):
        sweep_temporaries(part)
    if not continues and (folder / CONFIG_FILE).exists():
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
        if (folder / INITIAL).is_dir():
            remove_folder(folder / INITIAL)
    settings = config
    if continues:
        _note_changes(folder, config)
        # The folder's paths keep their meaning.
        kept = rebased(config.model_dump(mode="json"), Path.cwd(), base_of(folder))
        settings = RunConfig.model_validate(kept)
    write_config(folder, settings)


def _note_changes(folder: Path, config: RunConfig) -> None:
    """Write into manifest.json which memory settings are others from here on: name -> [before, now]."""
    path = folder / MANIFEST_FILE
    found = _changed(flatten(read_run_settings(folder / CONFIG_FILE)), config, ())
    changed = {name: [before, now] for name, before, now in found if name in MEMORY_SETTINGS}
    if changed and (content := read_json_if_any(path)):
        write_json(path, {**content, "memory_changes": [*content.get("memory_changes", []), changed]})


def write_config(folder: Path, config: RunConfig) -> None:
    """Write a run folder's settings, signed as this account's (see ``config.trust``)."""
    write_text(folder / CONFIG_FILE, signed_config(dump_config(config)))


def settings_beside(folder: Path, config: RunConfig) -> dict[str, Any]:
    """The dotted settings of ``config`` that are not those in ``folder``'s config.yaml; none without one."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return {}
    return {name: now for name, _, now in _changed(flatten(read_run_settings(path)), config, ())}


def _changed(old: dict[str, Any], config: RunConfig, free: Sequence[str]) -> list[Change]:
    """Dotted settings of ``config`` that differ from ``old`` and are not ``free``, nor in a free section.

    Paths are compared as this directory sees them: the run may have begun in another one. A setting that did
    not exist yet when it began has the default, which keeps what was done then.
    """
    new = flatten(config.model_dump(mode="json"))
    old = same_places(old, new)
    defaults = flatten(RunConfig().model_dump(mode="json"))
    old.update({key: defaults[key] for key in new if key in defaults and key not in old})
    return [
        change
        for change in differences(old, new)
        if not any(change[0] == f or change[0].startswith(f + ".") for f in free)
    ]


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(data, dict):
        return {prefix: data}
    if not data:
        return {prefix: {}}
    out: dict[str, Any] = {}
    for key, value in data.items():
        out.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return out


class MetricsLog:
    """metrics.jsonl. On a continuation, rows after iteration ``keep_until`` are dropped: they come again.

    Raises DataError, once, for a row that cannot be read; it is moved to ``metrics.unreadable.jsonl``.
    """

    def __init__(self, folder: Path, keep_until: int):
        self.path = folder / METRICS_FILE
        self.rows: list[dict[str, Any]] = []
        if self.path.exists():
            found = read_rows(self.path)
            if found.unreadable:
                self._set_aside(found)
            self.rows = [row for row in found.rows if row["iteration"] <= keep_until]
            self._rewrite(self.rows)
        folder.mkdir(parents=True, exist_ok=True)

    def _rewrite(self, rows: Sequence[dict[str, Any]]) -> None:
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def _set_aside(self, found: Rows) -> None:
        """Move rows that cannot be read beside the file, byte for byte, and raise DataError naming them."""
        aside = self.path.with_name(UNREADABLE)
        earlier = read_bytes(aside) if aside.exists() else b""
        write_bytes(aside, earlier + b"".join(line.text for line, _ in found.unreadable))
        self._rewrite(found.rows)
        error, more = found.unreadable[0][1], len(found.unreadable) - 1
        also = f" ({more} more lines are as bad)" if more else ""
        raise DataError(
            f"{error}{also}. It was moved to {aside}, where it can be repaired by hand; repeat the command "
            "to go on without it"
        ) from error

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, on the disk before it returns. Raises OSError naming the file."""
        append_line(self.path, json.dumps(row))
        self.rows.append(row)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write manifest.json once; a continued run keeps the first one and appends to its "continued" list."""
    path = folder / MANIFEST_FILE
    if old := read_json_if_any(path):
        again = check_record(list[dict[str, Any]], old.get("continued", []), file=path)
        old["continued"] = [*again, {k: content[k] for k in OF_EACH_START if k in content}]
        content = old
    else:
        content = {**content, **base_entry(folder)}
    write_json(path, content)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
