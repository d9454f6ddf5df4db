"""Settings as files: YAML files of the user, recipes of the package, and the layers below them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from repro_rl.config.renamed import with_current_names
from repro_rl.config.run import RunConfig
from repro_rl.config.values import as_typed
from repro_rl.errors import ConfigError, DataError, did_you_mean
from repro_rl.files import load_yaml
from repro_rl.files.names import CONFIG_FILE
from repro_rl.registry import add_kind, other_kinds

SHIPPED = files("repro_rl").joinpath("recipes")
DEFAULT_RECIPE = "sokoban-tiny"
BASE_KEY = "base"  # of a file: what it changes
PLUGINS = "plugins"  # the one setting whose values of all layers count


def read_settings(source: str | Path | None) -> dict[str, Any]:
    """The nested settings of a YAML file or a built-in recipe, not validated.

    ``base: NAME`` in it names a recipe, or a file in the same folder, whose settings it changes; see
    ``joined``. None: the recipe "sokoban-tiny". Raises ConfigError for a missing or broken file, an unknown
    recipe, and circular bases.
    """
    return joined(layer for _, layer in read_layers(source))


def read_layers(source: str | Path | None) -> list[tuple[str, dict[str, Any]]]:
    """The name and nested settings of each file that ``read_settings`` joins, the lowest base first."""
    layers: list[tuple[str, dict[str, Any]]] = []
    below: Any = None  # the environment of the layers so far
    for name, data in reversed(with_bases(str(source or DEFAULT_RECIPE), SHIPPED, recipe_names())):
        texts = read_named(name, SHIPPED, recipe_names(), as_texts=True)
        data = with_current_names(data, warn=Path(name).name != CONFIG_FILE)  # a run keeps its own names
        layer = _as_typed(data, with_current_names(texts, warn=False), below)
        below = env_name(layer) or below
        layers.append((name, with_method_section(layer)))
    return layers


def with_method_section(layer: dict[str, Any]) -> dict[str, Any]:
    """``method: NAME`` as a section with the name alone, which keeps the other fields of the layers below."""
    method = layer.get("method")
    return {**layer, "method": {"name": method}} if isinstance(method, str) else layer


def joined(layers: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Nested settings merged key by key, the lowest first.

    With another environment ``env.settings`` of the layers below are dropped. ``plugins`` are those of all.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        if env_name(layer) not in (None, env_name(settings)):
            settings["env"] = {}
        if PLUGINS in layer:
            layer = {**layer, PLUGINS: joined_plugins(settings, layer[PLUGINS])}
        settings = merged(settings, layer)
    return settings


def joined_plugins(under: dict[str, Any], over: Any) -> Any:
    """The modules of the settings ``under``, then those of ``over``; an empty list drops them all.

    A list that took the place of another would lose names that the other settings use.
    """
    before = under.get(PLUGINS)
    if not isinstance(before, list) or not isinstance(over, list) or not over:
        return over
    return [*before, *(module for module in over if module not in before)]


def with_bases(
    name: str, folder: Traversable, names: Sequence[str], kind: str = "recipe"
) -> list[tuple[str, dict[str, Any]]]:
    """The mapping of ``name``, then that of its ``base``, that of the base's and so on, each with its name.

    A base is one of ``names``, or for a user's file another one in the same folder. Raises what
    ``read_named`` does, and ConfigError for circular bases.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    while name not in [above for above, _ in layers]:
        try:
            data = read_named(name, folder, names, kind)
        except ConfigError as error:
            if not layers:
                raise
            above = layers[-1][0]
            beside = is_yaml_file(above) and Path(above).parent.joinpath(f"{name}.yaml").is_file()
            hint = f" For the file beside it, write base: {name}.yaml." if beside else ""
            raise ConfigError(f"{above}: base: {error}{hint}") from error
        base = data.pop(BASE_KEY, None)
        layers.append((name, data))
        if base is None:
            return layers
        both_files = is_yaml_file(name) and is_yaml_file(str(base))
        name = str(Path(name).parent / str(base) if both_files else base)
    raise ConfigError(f"base: {' -> '.join([*(above for above, _ in layers), name])} is circular.")


def _as_typed(data: dict[str, Any], texts: dict[str, Any], env: Any) -> dict[str, Any]:
    """The values of a file with text settings as they were typed; ``env``: the environment below it."""
    section = data.get("env")
    if isinstance(section, dict) and "name" not in section and env is not None:
        data = {**data, "env": {"name": env, **section}}
    typed: dict[str, Any] = as_typed(data, texts, RunConfig)
    return typed


def env_name(settings: dict[str, Any]) -> Any:
    """``env.name`` of nested settings; None where it is not given."""
    env = settings.get("env")
    return env.get("name") if isinstance(env, dict) else None


def is_yaml_file(name: str) -> bool:
    """Whether ``name`` means a file of the user, not something that ships with the package."""
    return Path(name).suffix in {".yaml", ".yml"}


def read_named(
    name: str,
    folder: Traversable,
    names: Sequence[str],
    kind: str = "recipe",
    *,
    as_texts: bool = False,
) -> dict[str, Any]:
    """The mapping in a YAML file of the user, or in NAME.yaml of ``folder``; empty for an empty file.

    ``names``: those that can be given instead of a file. ``kind``: what a message calls them. ``as_texts``:
    every scalar is the text that is written. Raises ConfigError for a missing or broken file, and for an
    unknown name.
    """
    if not is_yaml_file(name) and name not in names:
        there = Path(f"{name}.yaml").is_file()
        hint = f"To use the file {name}.yaml, give its whole name." if there else "A file must end in .yaml."
        unknown = other_kinds(name, kind) or f"Unknown {kind} {name!r}"
        raise ConfigError(f"{unknown}{did_you_mean(name, names)}. {hint}")
    if is_yaml_file(name) and not Path(name).exists():
        raise ConfigError(f"No {'config' if kind == 'recipe' else kind} file at {name}.")
    try:
        if is_yaml_file(name):
            data = load_yaml(Path(name), as_texts=as_texts)
        else:
            with as_file(folder.joinpath(f"{name}.yaml")) as file:
                data = load_yaml(file, as_texts=as_texts)
    except DataError as error:
        raise ConfigError(str(error)) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{name} must hold sections (a mapping), not {type(data).__name__}.")
    for key in data:
        if not isinstance(key, str):
            raise ConfigError(f"{name}: the section {key!r} must be a name.")
    return data


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``under`` with the values of ``over``, nested sections key by key."""
    out = dict(under)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def yaml_names(folder: Traversable, prefix: str = "") -> list[str]:
    """Names of the YAML files in a folder of the package, sorted, each with ``prefix``."""
    names = (item.name for item in folder.iterdir())
    return sorted(prefix + name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def recipe_names() -> list[str]:
    """Names of the settings that ship with the package; the paper's rows are ``paper/...``."""
    return sorted([*yaml_names(SHIPPED), *yaml_names(SHIPPED.joinpath("paper"), "paper/")])


add_kind("recipe", recipe_names, "-c {name}")
