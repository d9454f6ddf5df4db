"""Paths in settings that a run has kept: they are relative to the folder in which its command was started.

manifest.json says which one that was (``paths_from``, itself relative to the run folder), and demos.json does
for demonstrations. So a run works from any directory, and can be moved together with what it was made from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro_rl.config.recipe_files import read_settings
from repro_rl.errors import ConfigError
from repro_rl.files import read_json_if_any
from repro_rl.files.names import CONFIG_FILE, MANIFEST_FILE

BASE = "paths_from"  # in manifest.json
# Settings that are always paths or lists of them, and those that may name something else, such as a model of
# the hub.
PATHS = (
    *("prompt.template_dir", "train.demos", "demos.recorded", "demos.episodes", "api.cache"),
    *("policy.vllm.server.weights", "eval.panel"),
)
MODELS = ("policy.model", "train.init")
DATABASE = "train.tracking.address"  # a path where it begins with SQLITE, and three slashes are not four
SQLITE = "sqlite:///"
ENV = "env.settings"  # a text in it is a path where something is there by this name


def read_run_settings(path: Path) -> dict[str, Any]:
    """The settings in the config.yaml of a run folder, its paths as this process must open them.

    Raises what ``read_settings`` raises.
    """
    return rebased(read_settings(path), base_of(path.parent), Path.cwd())


def read_run_section(run: Path, name: str) -> dict[str, Any]:
    """One section of the settings of a run folder; empty where it has none. Raises ConfigError."""
    section = read_run_settings(run / CONFIG_FILE).get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{run / CONFIG_FILE}: {name} must be a section (a mapping), not {section!r}.")
    return section


def base_of(run: Path, file: str = MANIFEST_FILE) -> Path:
    """The folder that relative paths of a run folder start from: the current one where that is not known.

    ``file``: which says so.
    """
    base = read_json_if_any(run / file).get(BASE)
    folder = Path(os.path.normpath(run.absolute() / base)) if isinstance(base, str) else None
    return folder if folder is not None and folder.is_dir() else Path.cwd()


def base_entry(run: Path) -> dict[str, str]:
    """What the file of ``base_of`` says of the current directory; nothing without a relative path to it."""
    try:
        return {BASE: os.path.relpath(Path.cwd(), run.absolute())}
    except ValueError:  # Windows: on another disk
        return {}


def rebased(settings: dict[str, Any], base: Path, now: Path) -> dict[str, Any]:
    """The nested settings, their paths relative to ``base`` written so that they are right in ``now``.

    What is absolute, and what is no path, stays as it is. A model's name or a setting of the environment is a
    path where ``base`` holds something by that name. Of a list each item is written anew.
    """
    if base == now:
        return settings
    return {name: _changed(value, str(name), base, now) for name, value in settings.items()}


def resolved(run: Path, path: str) -> Path:
    """A path that a run folder keeps, as this process must open it."""
    return Path(_moved(path, base_of(run), Path.cwd()))


def after_renaming(run: Path, path: str) -> Iterator[Path]:
    """Where a path that a run folder keeps may lie now, if a folder above both was renamed; nearest first.

    ``runs/old/demos`` of the run ``runs/new/warmup`` is perhaps ``runs/new/demos``. The caller must check the
    content: something else may have that name.
    """
    parts = Path(path).parts
    for folder in run.absolute().parents:
        for first in range(1, len(parts)):
            found = folder.joinpath(*parts[first:])
            if found.exists():
                yield found


def _changed(value: Any, key: str, base: Path, now: Path) -> Any:
    if isinstance(value, dict):
        return {name: _changed(below, f"{key}.{name}", base, now) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(item, key, base, now) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if key in PATHS:
        return _moved(value, base, now)
    if key == DATABASE and value.startswith(SQLITE):
        return SQLITE + _moved(value.removeprefix(SQLITE), base, now)
    perhaps = (key in MODELS and value != "tiny") or key.startswith(f"{ENV}.")
    return _moved(value, base, now) if perhaps and (base / value).exists() else value


def _moved(path: str, base: Path, now: Path) -> str:
    if base == now or os.path.isabs(path) or path.startswith("~"):
        return path
    whole = os.path.normpath(base / path)
    try:
        inside = os.path.relpath(whole, now)
    except ValueError:  # Windows: on another disk
        return whole
    return whole if inside.startswith(os.pardir) else inside
