"""Every setting with its type, default and description, read from the section classes themselves."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from repro_rl.config.run import RunConfig
from repro_rl.config.values import env_schema, section_of

KINDS = {"str": "text", "bool": "true | false", "Path": "path"}  # how a type is called for a person
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


@dataclass(slots=True, frozen=True)
class Setting:
    """One setting."""

    name: str  # dotted, as it is written before =
    type: str  # such as "int > 0" or "on | off | auto"
    default: str  # as YAML; empty where it must be given
    description: str


@dataclass(slots=True, frozen=True)
class SectionReference:
    """A section: its settings without those of the sections below it."""

    name: str  # dotted; "" for the settings that are in no section; NAME for those of an environment
    about: str  # what the section is for, one sentence
    settings: tuple[Setting, ...]
    column: str = "default"  # what ``Setting.default`` holds here, for the head of a table


def sections() -> list[SectionReference]:
    """All sections of a run's settings, and those of the environments that ship, in the order of a file."""
    shipped = [found for name in ("sokoban", "alfworld", "webshop") if (found := env_section(name))]
    return [*_walk(RunConfig, ""), *shipped]


def sections_called(name: str) -> list[SectionReference]:
    """The section called ``name`` and those below it; one setting's own; or those of an environment.

    [] where nothing is called so.
    """
    known = sections()
    wanted = name.removeprefix("env.settings.").strip(".")
    if wanted != name:
        known = [section for section in known if env_schema(section.name) is not None]
    found = [section for section in known if section.name == wanted or section.name.startswith(f"{wanted}.")]
    if found:
        return found
    for section in known:
        for setting in section.settings:
            if setting.name == wanted:
                return [SectionReference(section.name, section.about, (setting,))]
    registered = env_section(wanted)
    return [] if registered is None else [registered]


def run_settings() -> dict[str, Setting]:
    """All settings of a run but those of environments, by their dotted names."""
    return {setting.name: setting for section in _walk(RunConfig, "") for setting in section.settings}


def env_section(name: str) -> SectionReference | None:
    """The settings of an environment, also of one that a plug-in registered; None for an unknown name.

    Of one without a schema: the parameters of what makes it.
    """
    schema = env_schema(name)
    if schema is None:
        return _env_parameters(name)
    return SectionReference(
        name,
        f"Settings of the environment, env.settings.KEY. {first_paragraph(schema)}",
        tuple(_settings(schema, "")),
    )


def _env_parameters(name: str) -> SectionReference | None:
    """The parameters of a registered environment or its factory, from its signature."""
    from repro_rl.envs.base import ENVS

    if name not in ENVS.names():
        return None
    found = []
    for parameter in inspect.signature(ENVS.get(name)).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        unset = parameter.empty
        text = "" if parameter.annotation is unset else inspect.formatannotation(parameter.annotation)
        kind = KINDS.get(text.strip("'"), text.strip("'"))
        value = "" if parameter.default is unset else yaml_text(parameter.default)
        found.append(Setting(parameter.name, kind, value, ""))
    about = "Settings of the environment, env.settings.KEY, as its code takes them"
    return SectionReference(name, f"{about}." if found else f"{about}: none.", tuple(found))


def setting_names() -> list[str]:
    """The dotted names of all settings of a run but those of environments."""
    return list(run_settings())


def as_markdown() -> str:
    """All settings as the page docs/settings.md."""
    parts = [PAGE_HEAD]
    for section in sections():
        parts.append(f"## {section.name or 'Top level'}\n\n{section.about}")
        rows = [
            f"| `{row.name}` | {_cell(row.type)} "
            f"| {f'`{_cell(row.default)}`' if row.default else 'required'} | {_cell(row.description)} |"
            for row in section.settings
        ]
        parts.append("\n".join(["| setting | type | default | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


PAGE_HEAD = """# Settings

Which settings are there, of which type, with which default? `repro-rl settings` prints the same
tables; `repro-rl settings train` prints one section, `repro-rl settings train.lr` one setting.
`repro-rl settings NAME` of a credit rule, loss, source of progress or method says what it is, which
settings it reads or sets, and when. Of a recipe or settings file it prints what that sets beside the
defaults, of a study the keys of its file. The page is made by `repro-rl settings --markdown`.

A setting is written `train.lr=1e-3` on the command line, and under its section in a YAML file.
Settings of an environment are written `env.settings.KEY=VALUE`, and `KEY=VALUE` in `play` and
`doctor`. No value is written `null`.

**How settings combine.** The later one wins:

1. the defaults below;
2. the file that a file names as its `base` (a recipe, or a file beside it), then the file. They are
   merged key by key. `-c RECIPE` is such a file; without `-c` it is the recipe `sokoban-tiny`;
3. `section.key=value` on the command line, from left to right.

A method then sets those fields of `method` and `train.loss` that neither the files nor the command
line give.

**Another method than the file's.** What defines a method does not pass to another one. It stays
behind when `-m`, an override, the arm of a study or a file above names another method than the file
does. A file that names none means that of its base, else `repro`. Left out are:

- `method.credit`, and each field of `method` that one of the two [methods](methods.md) sets itself;
- settings of the file's credit rule and sources of progress, where the other method has others;
- fields of `train.loss` that one of the two sets; the whole section where it chooses the loss.

All else holds for any method: `gamma`, `beta`, `judge_pool` and so on. A warning names values that
neither method has by itself. For example, `method: {name: gigpo, credit: my-rule, gamma: 0.9}` with
`-m grpo` gives `grpo` with its own rule and `gamma` 0.9. An override counts for any method:
`method.credit=my-rule`.

Four things surprise:

- `section={key: value}` on the command line replaces the whole section. Keys that it does not name
  go back to the defaults below, not to the recipe's. So `-c sokoban-tiny 'demos={expert: 8}'` loses
  the recipe's `demos.agent`, `mistakes` and `wandering`; `demos.expert=8` keeps them.
- A file without `base` starts from the defaults below, not from a recipe.
- `plugins` are added, not replaced: those of the base, the file and the command line are all
  imported. `plugins=[]` drops those before it.
- Another `env.name` than the one below it drops all `env` settings of the layers below."""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _walk(section: type[BaseModel], prefix: str) -> Iterator[SectionReference]:
    """``section`` and those below it, depth first; one without settings of its own is left out."""
    own = tuple(_settings(section, prefix))
    if own:
        yield SectionReference(prefix.rstrip("."), first_paragraph(section), own)
    for name, info in section.model_fields.items():
        below = section_of(info.annotation)
        if below is not None:
            yield from _walk(below, f"{prefix}{name}.")


def _settings(section: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, info in section.model_fields.items():
        if section_of(info.annotation) is None:
            description = " ".join((info.description or "").split())
            yield Setting(f"{prefix}{name}", type_text(info), _default(info), description)


def first_paragraph(documented: object) -> str:
    """The first paragraph of a docstring on one line, without markup of the source; empty without one."""
    return " ".join((documented.__doc__ or "").strip().split("\n\n")[0].split()).replace("``", "")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    return yaml_text(info.get_default(call_default_factory=True))


def type_of_value(value: Any, annotation: Any = None) -> str:
    """The type of a setting for a person, as it is annotated, else of its default; "" where that is null."""
    if annotation not in (None, inspect.Parameter.empty) and not isinstance(annotation, str):
        return _type(annotation)
    return "" if value is None else _type(type(value))


def yaml_text(value: Any) -> str:
    """A default as YAML; what YAML cannot write, as Python does."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, Path):
        value = str(value)
    try:
        return str(yaml.safe_dump(value, default_flow_style=True, width=10**9)).split("\n...")[0].strip()
    except yaml.YAMLError:
        return repr(value)


def type_text(info: FieldInfo) -> str:
    """The type of a setting for a person: ``int > 0``, ``float ≥ 0 or null``, ``on | off``."""
    return _type(info.annotation, info.metadata)


def _type(annotation: Any, metadata: Any = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, types.UnionType):
        members = [_type(item, metadata) for item in arguments if item is not types.NoneType]
        return " or ".join([*dict.fromkeys(members), *(["null"] if types.NoneType in arguments else [])])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (list, tuple):
        inner = [_type(item) for item in arguments if item is not Ellipsis]
        if origin is list or Ellipsis in arguments:
            return f"list of {inner[0]}"
        return f"[{', '.join(inner)}]"
    if origin is dict or annotation is dict:
        return "mapping"
    names = {str: "text", bool: "true | false", int: "int", float: "float", Path: "path", list: "list"}
    name = names.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return " ".join([name, *_bounds(metadata)]) if annotation in (int, float) else name


def _bounds(metadata: Any) -> Iterator[str]:
    """The bounds of a number among pydantic's notes, which have one attribute each."""
    for note in metadata:
        for inner in getattr(note, "metadata", None) or (
            note,
        ):  # a Field inside Annotated holds its own notes
            for key, sign in BOUNDS.items():
                bound = getattr(inner, key, None)
                if bound is not None:
                    yield f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}"
