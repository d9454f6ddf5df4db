"""Settings as files: YAML files of the user, recipes of the package, and what they build on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from repro_rl.errors import ConfigError, did_you_mean

_YAML = {".yaml", ".yml"}


def read_settings(source: str | Path | None) -> dict[str, Any]:
    """The raw nested settings of a YAML file or built-in recipe.

    ``base: NAME`` in it names a recipe, or a file beside it, whose settings it changes: sections are merged
    key by key, but ``env.settings`` of another environment begin afresh.
    """
    name = str(source or "sokoban-tiny")
    seen: list[str] = []
    layers: list[dict[str, Any]] = []
    while name not in seen:
        seen.append(name)
        data = _read_layer(name)
        layers.append(data)
        base = data.pop("base", None)
        if base is None:
            break
        beside = Path(name).parent / str(base)
        name = str(beside if Path(name).suffix in _YAML and Path(str(base)).suffix in _YAML else base)
    else:
        raise ConfigError(f"base: {' -> '.join([*seen, name])} is a circle.")
    settings: dict[str, Any] = {}
    for data in reversed(layers):
        env = data.get("env")
        if isinstance(env, dict) and env.get("name") not in (None, settings.get("env", {}).get("name")):
            settings["env"] = {}
        settings = _merged(settings, data)
    return settings


def _read_layer(name: str) -> dict[str, Any]:
    if Path(name).suffix in _YAML:
        path = Path(name)
        if not path.exists():
            raise ConfigError(f"No config file at {path}.")
        text = path.read_text()
    else:
        known = recipes()
        if name not in known:
            raise ConfigError(f"Unknown recipe {name!r}{did_you_mean(name, known)} A file must end in .yaml.")
        text = files("repro_rl").joinpath("recipes", f"{name}.yaml").read_text()
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{name} must hold sections (a mapping), not {type(data).__name__}.")
    return data


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(under)
    for key, value in over.items():
        old = out.get(key)
        out[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def recipes() -> list[str]:
    """Names of the settings that ship with the package; the paper's rows are ``paper/...``."""
    folder = files("repro_rl").joinpath("recipes")
    return sorted(
        prefix + item.name.removesuffix(".yaml")
        for prefix, place in (("", folder), ("paper/", folder.joinpath("paper")))
        for item in place.iterdir()
        if item.name.endswith(".yaml")
    )
