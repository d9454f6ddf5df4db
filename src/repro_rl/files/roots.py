"""The user's folders: one for what can be made again, one for settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_root() -> Path:
    """$REPRO_RL_CACHE, or ``repro-rl`` in the platform's folder for caches. Not created here."""
    return _root(
        "REPRO_RL_CACHE",
        windows=("LOCALAPPDATA", "~/AppData/Local"),
        mac="~/Library/Caches",
        other=("XDG_CACHE_HOME", "~/.cache"),
    )


def settings_root() -> Path:
    """$REPRO_RL_HOME, or ``repro-rl`` in the platform's folder for settings. Not created here."""
    return _root(
        "REPRO_RL_HOME",
        windows=("APPDATA", "~/AppData/Roaming"),
        mac="~/Library/Application Support",
        other=("XDG_CONFIG_HOME", "~/.config"),
    )


def _root(variable: str, *, windows: tuple[str, str], mac: str, other: tuple[str, str]) -> Path:
    """What ``variable`` of the environment names, else the platform's folder.

    ``windows``, ``other``: the variable of the environment that names that folder, and its usual place.
    """
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path(mac).expanduser() / "repro-rl"
    name, usual = windows if sys.platform == "win32" else other
    return Path(os.environ.get(name) or usual).expanduser() / "repro-rl"
