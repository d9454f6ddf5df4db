"""Settings that were called otherwise in an older version: their old names still mean what they did."""

from __future__ import annotations

import warnings
from typing import Any

from repro_rl.errors import ConfigError

# Old name to new name, of version 0.1.0. Both are in the same section.
RENAMED = {
    "train.eval_every": "train.validate_every",
    "demos.slips": "demos.mistakes",
    "demos.noise": "demos.labelled_mistakes",
    "alarms.max_length_ratio": "alarms.max_cut_off",
}


def current_name(name: str, *, warn: bool = True) -> str:
    """The present name of a dotted setting. ``warn``: an old name is a Python warning."""
    if name not in RENAMED:
        return name
    if warn:
        warnings.warn(f"{name} is called {RENAMED[name]} now.", stacklevel=2)
    return RENAMED[name]


def with_current_names(settings: dict[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """Nested settings with the present names in place of old ones.

    ``warn``: an old name is a Python warning. Raises ConfigError where a section holds both names of one.
    """
    for old, new in RENAMED.items():
        section, before = old.split(".")
        after = new.split(".")[1]
        held = settings.get(section)
        if not isinstance(held, dict) or before not in held:
            continue
        if after in held:
            raise ConfigError(f"{old} and {new} are the same setting; give {new} alone.")
        current_name(old, warn=warn)
        held = {after if name == before else name: value for name, value in held.items()}
        settings = {**settings, section: held}
    return settings
