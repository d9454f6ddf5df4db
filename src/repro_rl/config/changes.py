"""Two sets of settings: what differs between them, and how a message says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from repro_rl.config.paths import MODELS, PATHS

PATH_SETTINGS = (*PATHS, *MODELS, *(f"env.settings.{name}" for name in ("data", "levels", "goals", "prices")))
Change = tuple[str, object, object]  # a setting, its value there (in a folder), its value now


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[Change]:
    """What differs between two flat mappings, by name; None stands for a value that one does not have."""
    return [
        (name, old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def change_lines(changes: Iterable[Change]) -> str:
    """Settings that differ as lines of a message."""
    return "\n".join(f"  {name}: {before!r} there, {after!r} now" for name, before, after in changes)


def same_places(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``old`` with the paths of ``new`` where these lead to the same places; both are dotted settings.

    Paths are compared as this directory sees them.
    """
    return old | {
        key: new[key]
        for key in PATH_SETTINGS
        if key in old and key in new and _same_place(old[key], new[key])
    }


def _same_place(old: Any, new: Any) -> bool:
    """Whether two paths, or two lists of paths, lead to the same places, which are there."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return all(map(_same_place, old, new))
    if not (isinstance(old, str) and isinstance(new, str)):
        return False
    return Path(old).exists() and Path(new).exists() and Path(old).samefile(new)
