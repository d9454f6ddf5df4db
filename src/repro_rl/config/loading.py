"""Settings from files and the command line: recipes, dotted overrides, plug-ins, and readable errors."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from repro_rl.config.other_method import for_chosen, owners, without_overridden
from repro_rl.config.parsing import import_plugins, parse_config, parsed_to_play
from repro_rl.config.paths import read_run_settings
from repro_rl.config.recipe_files import (
    PLUGINS,
    env_name,
    is_yaml_file,
    joined,
    joined_plugins,
    read_layers,
    with_method_section,
)
from repro_rl.config.renamed import current_name, with_current_names
from repro_rl.config.run import RunConfig
from repro_rl.config.trust import Withheld, is_own, put_back, question, withhold
from repro_rl.config.values import name_in, parse_text, type_of
from repro_rl.errors import ConfigError
from repro_rl.files.names import CONFIG_FILE

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


def load_finished(source: str | Path, overrides: Sequence[Override]) -> RunConfig:
    """``load_config`` of what has been trained already and is only read again, such as an arm of a study.

    What only a training reads is not refused. Raises ConfigError for the rest.
    """
    layers = _read(source)
    data = joined(layers)
    _override(data, overrides, ())
    import_plugins(data.get(PLUGINS))
    given = without_overridden(owners(layers), _names(overrides))
    found = parsed_to_play(for_chosen(data, given))
    if found.config is None:
        raise ConfigError("\n".join(problem.text for problem in found.problems)) from found.cause
    return found.config


def load_run_config(
    run: str | Path,
    overrides: Sequence[Override] | None = None,
    defaults: Sequence[Override] = (),
    *,
    allow: Callable[[str], bool] | None = None,
) -> RunConfig:
    """The settings of the run in a folder, to play with its model; overrides are as in ``load_config``.

    Settings may run code, reach the network or read a secret (see ``trust``). Where another account made the
    run, those are used only with consent. It is given by naming them in ``overrides``, or by ``allow``, which
    gets a question about them and answers yes. Raises ConfigError naming them otherwise.

    Nothing is trained with these settings. What only a training reads is not refused, where the run has it
    so: a Python warning says what a training would be refused for. Overrides are checked like any others.
    """
    path = Path(run) / CONFIG_FILE
    kept = read_run_settings(path)
    data = copy.deepcopy(kept)
    given = without_overridden(owners([data]), _names(overrides or (), defaults))
    withheld: Withheld = {} if is_own(path) else withhold(data, Path(run))
    _override(data, overrides or (), defaults)
    missing = {keys: value for keys, value in withheld.items() if _is_missing(data, list(keys))}
    if missing and not (allow is not None and allow(question(path, missing, advice=False))):
        raise ConfigError(question(path, missing, advice=True))
    put_back(data, missing)
    import_plugins(data.get(PLUGINS))  # they may register the methods
    data = for_chosen(data, given)
    found = parsed_to_play(data)
    new = set(found.refused) - set(parsed_to_play(kept).refused) if found.refused else set()
    if found.config is None or new:
        return _parse_naming(data, given, path, bool(overrides))
    for sentence in found.refused:
        warnings.warn(
            f"{path}: {sentence}. A training with this would be refused now; nothing is trained here.",
            stacklevel=2,
        )
    return found.config


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
