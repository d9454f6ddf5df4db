"""Settings from files and the command line: recipes, dotted overrides, plug-ins, and readable errors."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from repro_rl.config.methods import METHODS
from repro_rl.config.paths import read_run_settings
from repro_rl.config.recipe_files import env_name, read_settings
from repro_rl.config.run import RunConfig
from repro_rl.errors import ConfigError, UnknownNameError, did_you_mean

# Settings whose wrong value may be an API key: messages leave it out.
SECRET = ("api.key_env", "api.base_url", "api", "policy.vllm.server.key_env", "policy.vllm.server.url")


def parse_config(data: dict[str, Any]) -> RunConfig:
    """Validate nested settings; a method name fills in what the settings leave out.

    Raises ConfigError with one line a problem.
    """
    data = dict(data)
    import_plugins(data.get("plugins", []))
    method = data.get("method", {})
    if isinstance(method, str):
        method = {"name": method}
    if isinstance(method, dict):
        name = method.get("name", "repro")
        try:
            data["method"] = {**METHODS.get(str(name)), **method, "name": name}
        except UnknownNameError as error:
            raise ConfigError(str(error)) from error
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(readable(error, RunConfig)) from error


def import_plugins(modules: Any) -> None:
    """Import the user's modules, which may register names. Raises ConfigError naming the module."""
    for module in modules if isinstance(modules, list) else []:
        try:
            importlib.import_module(str(module))
        except ImportError as error:
            raise ConfigError(
                f"plugins: cannot import {module!r} ({error}); is its folder on PYTHONPATH?"
            ) from error


def load_config(
    source: str | Path | None, overrides: list[str] | None = None, defaults: Sequence[str] = ()
) -> RunConfig:
    """Read a YAML file or a built-in recipe, apply ``section.key=value`` overrides, validate.

    ``source`` None means the recipe "sokoban-tiny". ``defaults``: overrides that those of ``overrides`` win
    over; a whole section in ``overrides`` keeps the defaults of keys that it does not name. Raises
    ConfigError naming the file, the setting and, for an unknown name, the nearest one.
    """
    data = _read(source)
    for override in (*defaults, *(overrides or [])):
        _apply_override(data, override)
    for default in defaults:  # again, where a whole section has replaced it
        if _is_missing(data, default.partition("=")[0].split(".")):
            _apply_override(data, default)
    return parse_config(data)


def _read(source: str | Path | None) -> dict[str, Any]:
    """The settings of a file or recipe; a run folder's own keep their paths from where it began."""
    if source is not None and Path(source).name == "config.yaml":
        return read_run_settings(Path(source))
    return read_settings(source)


def _is_missing(data: dict[str, Any], keys: list[str]) -> bool:
    """Whether the nested settings have no value at this dotted key, and a section where it belongs."""
    target: Any = data
    for key in keys[:-1]:
        target = target.get(key, {}) if isinstance(target, dict) else None
    return isinstance(target, dict) and keys[-1] not in target


def _apply_override(data: dict[str, Any], override: str) -> None:
    """Write one ``section.key=value`` into the nested settings, in place."""
    key, sign, text = override.partition("=")
    key = key.strip()
    if not sign or not key:
        raise ConfigError(f"Override {override!r} is not of the form section.key=value.")
    try:
        value = _number(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"Override {override!r}: the value is not YAML: {error}") from error
    if key == "method" and isinstance(value, str):
        key = "method.name"
    if key == "env.name" and env_name(data) != value:
        data["env"] = {}  # the recipe's settings belong to its own environment
    target = data
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(target.get(part), str) and part == "method":
            target[part] = {"name": target[part]}
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ConfigError(f"Override {override!r}: {part} is a value, not a section.")
    target[last] = value


def dump_config(config: RunConfig) -> str:
    """The resolved settings as YAML; ``parse_config`` of it gives an equal config."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _number(value: Any) -> Any:
    """``value`` as a float where it is the text of one: YAML reads 5e-4 as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def readable(error: ValidationError, root: type[BaseModel]) -> str:
    """One line a problem with the settings ``root``, each with the setting's full name."""
    lines = []
    for problem in error.errors():
        section, path = _locate(problem["loc"], root)
        where = ".".join(path)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            lines.append(f"Unknown setting {where!r}{did_you_mean(path[-1], section.model_fields)}")
        elif problem["type"] == "value_error" and isinstance(problem["input"], dict):
            lines.append(message)  # a rule that joins several settings and names them itself
        elif where in SECRET or problem["type"] == "missing":
            lines.append(f"{where}: {message}")
        else:
            lines.append(f"{where}: {message} (got {problem['input']!r})")
    return "\n".join(lines)


def _locate(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[type[BaseModel], list[str]]:
    """The section that a problem is in, and the parts of the setting's name.

    Pydantic also puts the members of a union into the location; these are left out.
    """
    section = root
    path: list[str] = []
    inside = True  # every part so far named a section
    for part in location:
        if isinstance(part, int):
            path.append(str(part))
        elif inside:
            path.append(part)
            below = _section_of(section.model_fields[part]) if part in section.model_fields else None
            section, inside = below or section, below is not None
    return section, path


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section class of a field, optional ones included; None for fields that are no sections."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
