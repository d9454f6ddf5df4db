"""What a recipe or a settings file sets, beside the defaults, for ``repro-rl settings``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from repro_rl.config.other_method import DEFAULT_METHOD
from repro_rl.config.recipe_files import env_name, read_settings
from repro_rl.config.reference import SectionReference, Setting, env_section, run_settings, yaml_text
from repro_rl.config.sections import EnvSection

ENV = "env.settings."


def recipe_section(name: str, about: str) -> SectionReference:
    """The settings of a recipe or file, those of its bases included; ``about``: what it is, sentences.

    Each has its value in the place of the default, which follows on the description. Raises what
    ``read_settings`` raises.
    """
    data = read_settings(name)
    env = str(env_name(data) or EnvSection().name)
    own = env_section(env)
    known = run_settings() | {f"{ENV}{row.name}": row for row in (own.settings if own else ())}
    settings = [_with_value(known.get(key), key, value) for key, value in _flat(data, known)]
    section = data.get("method")
    method = section.get("name", DEFAULT_METHOD) if isinstance(section, Mapping) else DEFAULT_METHOD
    told = f"{about} Its method is {method}; 'repro-rl settings {method}' shows what that sets."
    return SectionReference(name, f"{told} What it sets itself:", tuple(settings), "value")


def _with_value(row: Setting | None, key: str, value: Any) -> Setting:
    if row is None:  # of an environment that does not tell its settings, or a mistake
        return Setting(key, "", yaml_text(value), "")
    default = f"default {row.default}" if row.default else "no default"
    text = f"{row.description}; {default}" if row.description else default
    return Setting(key, row.type, yaml_text(value), text)


def _flat(
    data: Mapping[str, Any], known: Mapping[str, Setting], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Each setting below nested ``data``, with its dotted name; a mapping may be the value of one."""
    for name, value in data.items():
        key = f"{prefix}{name}"
        is_section = f"{key}." == ENV or not (key in known or key.startswith(ENV))
        if isinstance(value, Mapping) and is_section:
            yield from _flat(value, known, f"{key}.")
        else:
            yield key, value
