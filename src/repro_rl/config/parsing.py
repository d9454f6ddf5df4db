"""Nested settings become a ``RunConfig``: the method's own are filled in, and every rule is checked."""

from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import yaml
from pydantic import ValidationError

from repro_rl.config.methods import METHOD_LOSSES, METHODS
from repro_rl.config.not_a_method import unknown_method
from repro_rl.config.other_method import DEFAULT_METHOD
from repro_rl.config.problems import Problem, problems_of, readable
from repro_rl.config.recipe_files import merged
from repro_rl.config.renamed import with_current_names
from repro_rl.config.run import RunConfig
from repro_rl.errors import ConfigError, place_of
from repro_rl.losses.settings import LossSection
from repro_rl.settings import REFUSED

# Sections that only a training reads, and what playing with its model reads of them.
OF_TRAINING = ("method", "train", "warmup", "alarms")
READ_BY_PLAY = (
    *("method.name", "method.progress", "method.reflect", "method.judge"),
    *("train.init", "train.peer_timeout", "train.optimizer"),
)
UNKNOWN = ("method", "name")
# The name of a part, and the settings that this part alone has.
SETTINGS_OF = {
    ("method", "credit"): ("method", "credit_settings"),
    ("train", "loss", "name"): ("train", "loss", "settings"),
}
SOURCE_NAMES = (("method", "shaping"), ("method", "alignment"), ("method", "value_source"))


@dataclass(slots=True, frozen=True)
class Parsed:
    """What became of nested settings."""

    config: RunConfig | None  # None where they are refused
    problems: tuple[Problem, ...] = ()  # why they are
    refused: tuple[str, ...] = ()  # sentences on why a training with settings that are taken would be refused
    cause: Exception | None = None  # of the refusal


def parse_config(data: dict[str, Any]) -> RunConfig:
    """Validate nested settings; a method's name fills in what the settings leave out, its loss included.

    Raises ConfigError with one line a problem.
    """
    import_plugins(data.get("plugins", []))
    found = parsed(data)
    if found.config is None:
        raise ConfigError("\n".join(problem.text for problem in found.problems)) from found.cause
    return found.config


def check_trainable(config: RunConfig) -> None:
    """Raises ConfigError where ``config`` was read to play (``parsed_to_play``) and cannot be trained."""
    try:
        RunConfig.model_validate(config.model_dump())
    except ValidationError as error:
        raise ConfigError(readable(error, RunConfig)) from error


def parsed(data: dict[str, Any], refused: list[str] | None = None) -> Parsed:
    """``parse_config`` that returns the problems; its plugins are imported already.

    ``refused``: a list where the settings of a finished run are only read. What a training would be refused
    for is added to it.
    """
    data = with_current_names(dict(data))
    method = data.get("method", {})
    if isinstance(method, str):
        method = {"name": method}
    if isinstance(method, dict):
        name = method.get("name", DEFAULT_METHOD)
        known = str(name) in METHODS.names()
        if not known:
            unknown = unknown_method(str(name))
            if refused is None or not isinstance(name, str):
                return Parsed(None, (Problem(unknown, UNKNOWN),))
            refused.append(unknown)
        data["method"] = {**_filled(METHODS.get(name) if known else {}, method), "name": name}
        train = data.get("train", {})
        if name in METHOD_LOSSES and isinstance(train, dict):
            data["train"] = {**train, "loss": _joined_loss(METHOD_LOSSES.get(name), train.get("loss", {}))}
    try:
        config = RunConfig.model_validate(data, context=None if refused is None else {REFUSED: refused})
    except ValidationError as error:
        return Parsed(None, tuple(problems_of(error, RunConfig)), cause=error)
    return Parsed(config, refused=tuple(refused or ()))


def parsed_to_play(data: dict[str, Any]) -> Parsed:
    """``parsed`` of settings that a run has kept, for commands that play with its model and train nothing.

    Another version took them. What only a training reads must not stop such a command. A broken rule of
    training is written down in ``refused``. So is a value that cannot be used, and it is left out.
    """
    strict = parsed(data)
    if strict.config is not None:
        return strict
    data, left_out = copy.deepcopy(data), list[str]()
    while True:
        noted: list[str] = []
        found = parsed(data, noted)
        if found.config is not None:
            return Parsed(found.config, refused=tuple(dict.fromkeys([*left_out, *noted])))
        if not all(
            _is_of_training(problem.path) and _leave_out(data, problem.path) for problem in found.problems
        ):
            return strict
        left_out += [problem.text for problem in found.problems]


def _is_of_training(path: tuple[str, ...]) -> bool:
    """Whether only a training reads the setting or section of this name."""
    name = ".".join(path)
    return (
        len(path) > 1
        and path[0] in OF_TRAINING
        and not any(
            known == name or known.startswith(f"{name}.") or name.startswith(f"{known}.")
            for known in READ_BY_PLAY
        )
    )


def _leave_out(data: dict[str, Any], path: tuple[str, ...]) -> bool:
    """``_drop``, and of the name of a rule, loss or source its settings too: they are of nothing else."""
    own = SETTINGS_OF.get(path)
    if path in SOURCE_NAMES:
        own = ("method", "progress_settings", str(data["method"].get(path[-1])))
    if not _drop(data, path):
        return False
    if own is not None:
        _drop(data, own)
    return True


def _drop(data: dict[str, Any], path: tuple[str, ...]) -> bool:
    """Leave a setting out of nested ``data``, in place, with the list that it is in; False: it is not there.

    Of a section that lacks a setting, the section.
    """
    parents: list[tuple[dict[str, Any], str]] = []
    target: Any = data
    for part in path:
        if not isinstance(target, dict) or part not in target:
            break
        parents.append((target, part))
        target = target[part]
    if len(parents) < 2:  # a whole top-level section, or nothing
        return False
    section, key = parents[-1]
    del section[key]
    return True


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


def dump_config(config: RunConfig) -> str:
    """The resolved settings as YAML; ``parse_config`` of it gives an equal config."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
