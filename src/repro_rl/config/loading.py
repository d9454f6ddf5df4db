"""Settings from files and the command line: recipes, dotted overrides, plug-ins, and readable errors."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from repro_rl.config.environments import env_problems
from repro_rl.config.origins import Place, of_file, of_override, sentences
from repro_rl.config.other_method import for_chosen, owners, without_overridden
from repro_rl.config.parsing import Parsed, import_plugins, parsed, parsed_to_play
from repro_rl.config.paths import read_run_settings
from repro_rl.config.problems import Problem
from repro_rl.config.recipe_files import (
    PLUGINS,
    env_name,
    joined,
    joined_plugins,
    read_layers,
    with_method_section,
)
from repro_rl.config.renamed import current_name, with_current_names
from repro_rl.config.run import RunConfig
from repro_rl.config.trust import Withheld, is_own, put_back, question, withhold
from repro_rl.config.values import name_in, parse_text, type_of
from repro_rl.errors import ConfigError, clause
from repro_rl.files.names import CONFIG_FILE
from repro_rl.registry import other_kinds

Check = Callable[[RunConfig], Iterable[Problem]]  # further rules that settings must keep
Override = str | tuple[str, Any]  # "section.key=value" as typed, or the dotted name and the value itself


def load_config(
    source: str | Path | None,
    overrides: Sequence[Override] | None = None,
    defaults: Sequence[Override] = (),
    *,
    above: tuple[str, dict[str, Any]] | None = None,
    check: Check = lambda config: (),
) -> RunConfig:
    """Read a YAML file or a built-in recipe, apply overrides, validate.

    ``source`` None means the recipe "sokoban-tiny". ``defaults``: overrides that those of ``overrides`` win
    over; a whole section in ``overrides`` keeps the defaults of keys that it does not name. ``plugins`` are
    added to those before, see ``joined_plugins``. The value of a text setting is taken as typed, any other is
    YAML (see ``values``). ``above``: another file and its nested settings, which has ``source`` as its base.
    What files give to another method than the chosen one is left out, see ``other_method``. ``check``: finds
    further problems, which are told like the others.

    The environment must exist and take its settings. Raises ConfigError naming the setting, the file or
    override that sets it and, for an unknown name, the nearest one.
    """
    layers = _read(source)
    if above is not None:
        layers.append((above[0], with_method_section(with_current_names(above[1]))))
    data, given, places = _joined(layers, overrides or (), defaults)
    _import_plugins(data, places)  # they may register the methods
    config = _taken(parsed(for_chosen(data, given)), places)
    return _checked(config, [*env_problems(config.env), *check(config)], places)


def load_finished(source: str | Path, overrides: Sequence[Override]) -> RunConfig:
    """``load_config`` of what has been trained already and is only read again, such as an arm of a study.

    What only a training reads is not refused. Raises ConfigError for the rest.
    """
    data, given, places = _joined(_read(source), overrides, ())
    _import_plugins(data, places)
    return _taken(parsed_to_play(for_chosen(data, given)), places)


def load_run_config(
    run: str | Path,
    overrides: Sequence[Override] | None = None,
    defaults: Sequence[Override] = (),
    *,
    allow: Callable[[str], bool] | None = None,
    check: Check = lambda config: (),
) -> RunConfig:
    """The settings of the run in a folder, to play with its model; overrides are as in ``load_config``.

    Settings may run code, reach the network or read a secret (see ``trust``). Where another account made the
    run, those are used only with consent. It is given by naming them in ``overrides``, or by ``allow``, which
    gets a question about them and answers yes. Raises ConfigError naming them otherwise. ``check`` is that of
    ``load_config``; whether the environment exists is found out when it is built.

    Nothing is trained with these settings. What only a training reads is not refused, where the run has it
    so: a Python warning says what a training would be refused for. Overrides are checked like any others.
    """
    path = Path(run) / CONFIG_FILE
    kept = read_run_settings(path)
    data = copy.deepcopy(kept)
    given = without_overridden(owners([data]), _names(overrides or (), defaults))
    withheld: Withheld = {} if is_own(path) else withhold(data, Path(run))
    typed = _override(data, overrides or (), defaults)
    missing = {keys: value for keys, value in withheld.items() if _is_missing(data, list(keys))}
    if missing and not (allow is not None and allow(question(path, missing, advice=False))):
        raise ConfigError(question(path, missing, advice=True))
    put_back(data, missing)
    places = [of_file(str(path), kept), *typed]
    _import_plugins(data, places)
    data = for_chosen(data, given)
    found = parsed_to_play(data)
    if found.refused and set(found.refused) - set(parsed_to_play(kept).refused):  # by what is typed now
        return _taken(parsed(data), places)
    config = _taken(found, places)
    _checked(config, list(check(config)), places)
    for sentence in found.refused:
        warnings.warn(
            f"{path}: {clause(sentence)}. A training with this would be refused now; "
            "nothing is trained here.",
            stacklevel=2,
        )
    return config


def _joined(
    layers: Sequence[tuple[str, dict[str, Any]]], overrides: Sequence[Override], defaults: Sequence[Override]
) -> tuple[dict[str, Any], dict[str, str], list[Place]]:
    """Nested settings of files and overrides; to which methods files gave what; and where what is set."""
    files = [layer for _, layer in layers]
    data = joined(copy.deepcopy(files))
    given = without_overridden(owners(files), _names(overrides, defaults))
    places = [of_file(name, layer) for name, layer in layers]
    places += _override(data, overrides, defaults)
    return data, given, places


def _taken(found: Parsed, places: Sequence[Place]) -> RunConfig:
    """The settings that were found. Raises ConfigError, which says where what is refused is set."""
    if found.config is not None:
        return found.config
    raise _refusal(found.problems, places) from found.cause


def _checked(config: RunConfig, problems: Sequence[Problem], places: Sequence[Place]) -> RunConfig:
    """``config``. Raises ConfigError where there are problems with it."""
    if problems:
        raise _refusal(problems, places)
    return config


def _refusal(problems: Sequence[Problem], places: Sequence[Place]) -> ConfigError:
    """The error on settings with these problems, which says where they are set."""
    lines = [problem.text for problem in problems]
    return ConfigError("\n".join([*lines, *sentences(problems, places)]))


def _import_plugins(data: dict[str, Any], places: Sequence[Place]) -> None:
    """``import_plugins``, whose error also says where the module is named."""
    modules = data.get(PLUGINS)
    for module in modules if isinstance(modules, list) else []:
        try:
            import_plugins([module])
        except ConfigError as error:
            naming = [place for place in places if module in (place.settings.get(PLUGINS) or ())]
            told = sentences([Problem("", (PLUGINS,))], naming)
            raise ConfigError("\n".join([str(error), *told])) from error


def _override(
    data: dict[str, Any], overrides: Sequence[Override], defaults: Sequence[Override]
) -> list[Place]:
    """Write overrides into the nested settings, in place; see ``load_config``. What each has set."""
    places = [_apply_override(data, override) for override in (*defaults, *overrides)]
    for default in defaults:  # again, where a whole section has replaced it
        name = name_in(default) if isinstance(default, str) else default[0]
        if _is_missing(data, name.split(".")):
            places.append(_apply_override(data, default))
    return places


def _read(source: str | Path | None) -> list[tuple[str, dict[str, Any]]]:
    """The settings of a file or recipe, the lowest layer first; a run's own keep their paths."""
    if source is not None and Path(source).name == CONFIG_FILE:
        return [(str(source), read_run_settings(Path(source)))]
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


def _apply_override(data: dict[str, Any], override: Override) -> Place:
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
    place = of_override(key, copy.deepcopy(value), override if isinstance(override, str) else None)
    if key == PLUGINS:
        value = joined_plugins(data, value)
    target = data
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(target.get(part), str) and part == "method":
            target[part] = {"name": target[part]}
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            typed = override if isinstance(override, str) else key
            raise ConfigError(
                f"Override {typed!r}: {part} is a value in the settings before it, not a section."
            )
    target[last] = value
    return place


def _parsed(data: dict[str, Any], override: str) -> tuple[str, Any]:
    """The dotted name and the value of ``section.key=value``; ``data``: the settings that it changes."""
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        elsewhere = other_kinds(override, "setting")
        also = f" {elsewhere}." if elsewhere else ""
        raise ConfigError(f"Override {override!r} is not of the form section.key=value.{also}")
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
