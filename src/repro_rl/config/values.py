"""What a person writes as the value of a setting, as the value that the setting needs.

A text setting (a path, a name, an address) is never read as YAML: ``001``, ``no`` and ``a: b`` stay what they
are. Everything else is YAML.
"""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from repro_rl.errors import ConfigError, DataError
from repro_rl.files import parse_yaml

if TYPE_CHECKING:
    from repro_rl.envs.base import TextEnv

Kind = Literal["text", "texts", "text or texts", "other"]  # of a setting
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")  # decimal, unlike YAML's 010


def parse_text(text: str, annotation: Any) -> Any:
    """The value that ``text``, typed behind ``key=``, means for a setting of the type ``annotation``.

    Text is taken as it is, blanks included. Only quotes around the whole are dropped, and no text at all is
    None for a setting that may be None. Lists of texts: [a, b], likewise. Others: YAML, with 010 as ten,
    5e-4 as a number, and the text settings in a section as typed. Raises ConfigError.
    """
    kind, optional = kind_of(annotation), type(None) in _members(annotation)
    if kind == "text":
        return None if optional and not text else _unquoted(text)
    if kind == "other":
        if NUMBER.fullmatch(text.strip()):
            return _number(text.strip())
        return as_typed(_yaml(text), _yaml(text, as_texts=True), annotation)
    if not text.strip():
        return None if optional else []
    if not (text.strip().startswith("[") and text.strip().endswith("]")):
        return _unquoted(text)  # no list: pydantic says so where one is needed
    items = _yaml(text, as_texts=True)
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{text!r} is not a list of texts; put each one in quotes, as in ['a: b', c].")
    return items


def as_typed(value: Any, texts: Any, annotation: Any) -> Any:
    """``value``, read from YAML, with the text settings in it as they were typed.

    ``texts``: the same YAML with every scalar as text. ``annotation``: the type that the value needs. A null
    stays None.
    """
    if value is None or texts is None:
        return value
    section = section_of(annotation)
    if section is not None:
        if isinstance(value, dict) and isinstance(texts, dict):
            fields = {key: _annotation_in(section, key, value) for key in value}
            return {key: as_typed(item, texts.get(key), fields[key]) for key, item in value.items()}
        return texts if isinstance(texts, str) else value  # method: NAME
    kind = kind_of(annotation)
    if kind in ("texts", "text or texts") and isinstance(value, list) and isinstance(texts, list):
        return [_typed(item, text) for item, text in zip(value, texts, strict=True)]
    return _typed(value, texts) if kind in ("text", "text or texts") else value


def type_of(root: type[BaseModel], keys: Sequence[str], env: object = None) -> Any:
    """The type of the setting called ``keys`` (its dotted name, split); None for a name that does not exist.

    ``env``: the environment's name, which decides on ``env.settings``; None: not known.
    """
    section: type[BaseModel] | None = root
    annotation: Any = None
    for number, key in enumerate(keys):
        if section is None:
            return None
        values = {"name": env} if keys[:1] == ["env"] and number == 1 else {}
        annotation = _annotation_in(section, key, values)
        section = section_of(annotation)
    return annotation


def name_in(override: str) -> str:
    """The dotted name in ``section.key=value``."""
    return override.partition("=")[0].strip()


def env_values(name: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as keyword arguments of ``repro_rl.make(name)``. Raises ConfigError."""
    schema = env_schema(name) or _EnvSettings
    settings: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise ConfigError(f"{override!r} is not KEY=VALUE.")
        try:
            settings[key] = parse_text(text, type_of(schema, [key]))
        except ConfigError as error:
            raise ConfigError(f"{override!r}: {error}") from error
    return settings


def kind_of(annotation: Any) -> Kind:
    """Whether a setting of this type is a text, a list of texts, either of both, or something else."""
    members = _members(annotation) - {type(None)}
    if not members:
        return "other"
    if members <= {str, Path}:
        return "text"
    lists = {member for member in members if _is_list_of_texts(member)}
    if lists == members:
        return "texts"
    return "text or texts" if members <= {str, Path} | lists else "other"


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class of a setting, optional ones included; None for settings that are no sections."""
    kinds = (kind for kind in _members(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel))
    return next(kinds, None)


def env_schema(name: object) -> type[BaseModel] | None:
    """The settings of an environment of that name; None where they are not known."""
    env = _env_class(name)
    return None if env is None else env.settings_schema


def env_free_settings(name: object) -> frozenset[str]:
    """``TextEnv.free_settings`` of an environment of that name; none where they are not known."""
    env = _env_class(name)
    return frozenset() if env is None else env.free_settings


def _env_class(name: object) -> type[TextEnv] | None:
    from repro_rl.envs.base import ENVS, TextEnv  # the environments take a while to import

    try:
        factory = ENVS.get(str(name))
    except LookupError:
        return None
    return factory if isinstance(factory, type) and issubclass(factory, TextEnv) else None


class _EnvSettings(BaseModel):
    """Stands for ``env.settings`` of an environment that is not known."""


def _annotation_in(section: type[BaseModel], key: str, values: dict[str, Any]) -> Any:
    """The type of the setting ``key`` of a section whose ``values`` are partly known; None: not known."""
    from repro_rl.config.sections import EnvSection

    if section is EnvSection and key == "settings":
        return env_schema(values.get("name") or EnvSection().name) or _EnvSettings
    field = section.model_fields.get(str(key))
    if field is None:
        return None
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _members(annotation: Any) -> set[Any]:
    """The types that a type allows, without the notes on them."""
    if isinstance(annotation, types.NoneType):
        return set()
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return set().union(*map(_members, get_args(annotation)))
    try:
        return {annotation}
    except TypeError:  # not hashable, so none of those that are looked for
        return set()


def _is_list_of_texts(annotation: Any) -> bool:
    arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    return (
        get_origin(annotation) in (list, tuple)
        and bool(arguments)
        and all(kind_of(argument) == "text" for argument in arguments)
    )


def _typed(value: Any, text: Any) -> Any:
    return text if isinstance(text, str) and value is not None and not isinstance(value, str) else value


def _unquoted(text: str) -> str:
    """``text`` without the quotes around the whole of it."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        try:
            inside = parse_yaml(text)
        except DataError:
            return text
        return inside if isinstance(inside, str) else text
    return text


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _yaml(text: str, *, as_texts: bool = False) -> Any:
    try:
        return parse_yaml(text, as_texts=as_texts)
    except DataError as error:
        raise ConfigError(f"the value {error}") from error
