"""Settings from files and the command line: recipes, dotted overrides, plug-ins, and readable errors."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from repro_rl.config.methods import METHOD_LOSSES, METHODS
from repro_rl.config.not_a_method import unknown_method
from repro_rl.config.other_method import DEFAULT_METHOD, for_chosen, owners, without_overridden
from repro_rl.config.paths import read_run_settings
from repro_rl.config.recipe_files import (
    BASE_KEY,
    PLUGINS,
    env_name,
    is_yaml_file,
    joined,
    joined_plugins,
    merged,
    read_layers,
    with_method_section,
)
from repro_rl.config.renamed import current_name, with_current_names
from repro_rl.config.run import RunConfig
from repro_rl.config.trust import Withheld, is_own, put_back, question, withhold
from repro_rl.config.values import name_in, parse_text, section_of, type_of
from repro_rl.errors import ConfigError, did_you_mean, place_of
from repro_rl.files.names import CONFIG_FILE
from repro_rl.losses.settings import LossSection

# Settings whose wrong value may be an API key: messages leave it out.
SECRET = ("api.key_env", "api.base_url", "api", "policy.vllm.server.key_env", "policy.vllm.server.url")


def parse_config(data: dict[str, Any]) -> RunConfig:
    """Validate nested settings; a method's name fills in what the settings leave out, its loss included.

    Raises ConfigError with one line a problem.
    """
    data = with_current_names(dict(data))
    import_plugins(data.get("plugins", []))
    method = data.get("method", {})
    if isinstance(method, str):
        method = {"name": method}
    if isinstance(method, dict):
        name = method.get("name", DEFAULT_METHOD)
        if str(name) not in METHODS.names():
            raise ConfigError(unknown_method(str(name)))
        data["method"] = {**_filled(METHODS.get(str(name)), method), "name": name}
        train = data.get("train", {})
        if name in METHOD_LOSSES and isinstance(train, dict):
            data["train"] = {**train, "loss": _joined_loss(METHOD_LOSSES.get(name), train.get("loss", {}))}
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(readable(error, RunConfig)) from error


def _filled(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``given`` with the fields of a method that it leaves out.

    The method's settings of a credit rule or source stay behind where ``given`` names another one.
    """
    named, kept = {**preset, **given}, dict(preset)
    if named.get("credit") != preset.get("credit"):
        kept.pop("credit_settings", None)
    of_sources = preset.get("progress_settings")
    if isinstance(of_sources, dict):
        asked = [named.get(name) for name in ("shaping", "alignment", "value_source")]
        kept["progress_settings"] = {name: own for name, own in of_sources.items() if name in asked}
    return merged(kept, given)


def _joined_loss(own: dict[str, Any], given: Any) -> Any:
    """``given`` with the fields of a method's ``own`` loss that it leaves out; another loss stands alone."""
    name = own.get("name", LossSection.model_fields["name"].default)
    return {**own, **given} if isinstance(given, dict) and given.get("name", name) == name else given


def import_plugins(modules: Any) -> None:
    """Import the user's modules, which may register names. Raises ConfigError naming the module."""
    for module in modules if isinstance(modules, list) else []:
        import_named("plugins", str(module))


def import_named(setting: str, module: str) -> ModuleType:
    """Import a module that ``setting`` names. Raises ConfigError naming it, whatever the module raises."""
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the module is the user's own
        absent = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        hint = "; is its folder on PYTHONPATH?" if absent else place_of(error)
        raise ConfigError(
            f"{setting}: cannot import {module!r}: {type(error).__name__}: {error}{hint}"
        ) from error


Override = str | tuple[str, Any]  # "section.key=value" as typed, or the dotted name and the value itself


def load_config(
    source: str | Path | None,
    overrides: Sequence[Override] | None = None,
    defaults: Sequence[Override] = (),
    *,
    above: dict[str, Any] | None = None,
) -> RunConfig:
    """Read a YAML file or a built-in recipe, apply overrides, validate.

    ``source`` None means the recipe "sokoban-tiny". ``defaults``: overrides that those of ``overrides`` win
    over; a whole section in ``overrides`` keeps the defaults of keys that it does not name. ``plugins`` are
    added to those before, see ``joined_plugins``. The value of a text setting is taken as typed, any other is
    YAML (see ``values``). ``above``: nested settings of another file, which has ``source`` as its base. What
    files give to another method than the chosen one is left out, see ``other_method``. Raises ConfigError
    naming the file, the setting and, for an unknown name, the nearest one.
    """
    layers = [*_read(source), *([with_method_section(with_current_names(above))] if above else [])]
    data = joined(layers)
    given = without_overridden(owners(layers), _names(overrides or (), defaults))
    _override(data, overrides or (), defaults)
    return _parse_naming(data, given, source, bool(overrides))


def load_run_config(
    run: str | Path,
    overrides: Sequence[Override] | None = None,
    defaults: Sequence[Override] = (),
    *,
    allow: Callable[[str], bool] | None = None,
) -> RunConfig:
    """The settings of the run in a folder, with overrides as in ``load_config``.

    Settings may run code, reach the network or read a secret (see ``trust``). Where another account made the
    run, those are used only with consent. It is given by naming them in ``overrides``, or by ``allow``, which
    gets a question about them and answers yes. Raises ConfigError naming them otherwise.
    """
    path = Path(run) / CONFIG_FILE
    data = read_run_settings(path)
    given = without_overridden(owners([data]), _names(overrides or (), defaults))
    withheld: Withheld = {} if is_own(path) else withhold(data, Path(run))
    _override(data, overrides or (), defaults)
    missing = {keys: value for keys, value in withheld.items() if _is_missing(data, list(keys))}
    if missing and not (allow is not None and allow(question(path, missing, advice=False))):
        raise ConfigError(question(path, missing, advice=True))
    put_back(data, missing)
    return _parse_naming(data, given, path, bool(overrides))


def _parse_naming(
    data: dict[str, Any], given: dict[str, str], source: str | Path | None, overridden: bool
) -> RunConfig:
    """``parse_config``, whose error also says in which file the settings are.

    ``given``: the methods to which files gave what, see ``other_method.owners``.
    """
    try:
        import_plugins(data.get(PLUGINS))  # they may register the methods
        return parse_config(for_chosen(data, given))
    except ConfigError as error:
        if source is None or not is_yaml_file(str(source)):
            raise
        also = " or on the command line" if overridden else ""
        raise ConfigError(f"{error}\nThe settings are in {source}{also}.") from error


def _override(data: dict[str, Any], overrides: Sequence[Override], defaults: Sequence[Override]) -> None:
    """Write overrides into the nested settings, in place; see ``load_config``."""
    for override in (*defaults, *overrides):
        _apply_override(data, override)
    for default in defaults:  # again, where a whole section has replaced it
        name = name_in(default) if isinstance(default, str) else default[0]
        if _is_missing(data, name.split(".")):
            _apply_override(data, default)


def _read(source: str | Path | None) -> list[dict[str, Any]]:
    """The settings of a file or recipe, the lowest layer first; a run's own keep their paths."""
    if source is not None and Path(source).name == CONFIG_FILE:
        return [read_run_settings(Path(source))]
    return read_layers(source)


def _names(*overrides: Sequence[Override]) -> list[str]:
    """The dotted names that overrides set."""
    return [name_in(item) if isinstance(item, str) else item[0] for some in overrides for item in some]


def _is_missing(data: dict[str, Any], keys: list[str]) -> bool:
    """Whether the nested settings have no value at this dotted key, and a section where it belongs."""
    target: Any = data
    for key in keys[:-1]:
        target = target.get(key, {}) if isinstance(target, dict) else None
    return isinstance(target, dict) and keys[-1] not in target


def _apply_override(data: dict[str, Any], override: Override) -> None:
    """Write one override into the nested settings, in place."""
    key, value = (
        _parsed(data, override) if isinstance(override, str) else (current_name(override[0]), override[1])
    )
    if isinstance(value, dict):  # a whole section
        value = with_current_names({key: value})[key]
    if key == "method" and isinstance(value, str):
        key = "method.name"
    if key == "env.name" and env_name(data) != value:
        data["env"] = {}  # the recipe's settings belong to its own environment
    if key == PLUGINS:
        value = joined_plugins(data, value)
    target = data
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(target.get(part), str) and part == "method":
            target[part] = {"name": target[part]}
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ConfigError(f"Override {override!r}: {part} is a value, not a section.")
    target[last] = value


def _parsed(data: dict[str, Any], override: str) -> tuple[str, Any]:
    """The dotted name and the value of ``section.key=value``; ``data``: the settings that it changes."""
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"Override {override!r} is not of the form section.key=value.")
    if key != key.rstrip():  # "key = value"
        text = text.strip()
    key = current_name(key.strip())
    annotation = type_of(RunConfig, key.split("."), env_name(data))
    if key == "method" and not text.lstrip().startswith("{"):
        annotation = str
    try:
        return key, parse_text(text, annotation)
    except ConfigError as error:
        raise ConfigError(f"Override {override!r}: {error}") from error


def dump_config(config: RunConfig) -> str:
    """The resolved settings as YAML; ``parse_config`` of it gives an equal config."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def readable(error: ValidationError, root: type[BaseModel]) -> str:
    """One line a problem with the settings ``root``, each with the setting's full name."""
    lines = []
    for problem in error.errors():
        section, path = _locate(problem["loc"], root)
        where = ".".join(path)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            lines.append(f"Unknown setting {where!r}{_hint(path[-1], section, root)}")
        elif problem["type"] == "value_error" and isinstance(problem["input"], dict):
            lines.append(message)  # a rule that joins several settings and names them itself
        elif where in SECRET or problem["type"] == "missing":
            lines.append(f"{where}: {message}")
        else:
            lines.append(f"{where}: {message} (got {problem['input']!r})")
    return "\n".join(lines)


def _hint(name: str, section: type[BaseModel], root: type[BaseModel]) -> str:
    """What may have been meant by an unknown ``name`` in ``section``: what is called so elsewhere, if any."""
    elsewhere = sorted(f"{prefix}{name}" for prefix, other in _sections(root) if name in other.model_fields)
    known = [*section.model_fields, *([BASE_KEY] if section is root and name != BASE_KEY else [])]
    return did_you_mean(name, known, elsewhere)


def _sections(root: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """``root`` and every section below it, each with what stands before the names of its settings."""
    yield prefix, root
    for name, field in root.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield from _sections(section, f"{prefix}{name}.")


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
            annotation = section.model_fields[part].annotation if part in section.model_fields else None
            types = (annotation, *get_args(annotation))  # the section itself, or those of a list
            below = next(filter(None, map(section_of, types)), None)
            section, inside = below or section, below is not None
    return section, path
