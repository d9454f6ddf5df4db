"""The reference pages from the code: ``python docs/data/reference.py cli`` or ``settings``.

The site puts them where a page says ``<!-- generated: cli -->`` or ``<!-- generated: settings -->``
(``docs/data/site.py``), so they are never behind the code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from repro_rl.config import RunConfig
from repro_rl.settings import Section

MARKUP = re.compile(r"\[/?(?:bold|italic|dim|green|red|yellow|cyan)[^\]]*\]")  # of rich, in help texts


def cli() -> str:
    """Every command with its arguments and options."""
    import typer

    from repro_rl.cli.commands import app

    return "\n".join(_command(typer.main.get_command(app), ["repro-rl"]))


def _command(command: Any, path: list[str]) -> Iterator[str]:
    name = " ".join(path)
    if len(path) > 1:
        yield f"{'#' * min(len(path), 4)} {name}\n"
    yield _plain(command.help) + "\n"
    rows = [row for parameter in command.params if (row := _parameter(parameter))]
    if rows and len(path) > 1:
        yield "| argument or option | meaning | default |\n|---|---|---|"
        yield from rows
        yield ""
    for child in sorted(getattr(command, "commands", {}).values(), key=lambda child: str(child.name)):
        if not child.hidden:
            yield from _command(child, [*path, str(child.name)])


def _parameter(parameter: Any) -> str | None:
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return None
    option = parameter.param_type_name == "option"
    names = (
        [*parameter.opts, *parameter.secondary_opts]
        if option
        else [parameter.metavar or parameter.name.upper()]
    )
    default = parameter.default() if callable(parameter.default) else parameter.default
    shown = getattr(parameter, "show_default", None)
    known = shown if isinstance(shown, str) else "" if default in (None, (), []) else default
    cells = (
        ", ".join(f"`{name}`" for name in names),
        _cell(parameter.help),
        f"`{known}`" if known != "" else "",
    )
    return f"| {' | '.join(cells)} |"


def settings() -> str:
    """Every setting by section, with its type, default and meaning."""
    return "\n".join(_section(RunConfig, ""))


def _section(section: type[Section], path: str) -> Iterator[str]:
    fields = section.model_fields
    nested = {name: field for name, field in fields.items() if _is_section(field)}
    if path:
        yield f"## {path}\n"
        yield _plain(section.__doc__) + "\n"
    own = [(name, field) for name, field in fields.items() if name not in nested]
    if own:
        yield "| setting | values | default | meaning |\n|---|---|---|---|"
        for name, field in own:
            default = field.get_default(call_default_factory=True)
            full = f"{path}.{name}" if path else name
            yield f"| `{full}` | {_values(field)} | `{_yaml(default)}` | {_cell(field.description)} |"
        yield ""
    for name, field in nested.items():
        yield from _section(field.annotation, f"{path}.{name}" if path else name)  # type: ignore[arg-type]


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Section)


def _values(field: FieldInfo) -> str:
    """The type as a person would write it, with its bounds."""
    bounds = [_bound(item) for item in field.metadata]
    return _cell(", ".join([_kind(field.annotation), *(b for b in bounds if b)]))


def _kind(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin is Annotated:
        return _kind(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(_kind(one) for one in inner)
    if inner:
        return f"{_kind(origin)} of {', '.join(_kind(one) for one in inner if one is not Ellipsis)}"
    names = {type(None): "null", str: "text", Any: "anything", bool: "true, false", dict: "mapping"}
    return names.get(kind) or str(getattr(kind, "__name__", kind)).lower()


def _bound(item: Any) -> str:
    for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
        if getattr(item, name, None) is not None:
            return f"{sign} {getattr(item, name)}"
    return ""


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if value != "" else '""'


def _cell(text: str | None) -> str:
    return _plain(text).replace("|", "\\|").replace("\n", " ")


def _plain(text: str | None) -> str:
    """A help text without rich's markup; ``name`` as `name`; < and * as they are written."""
    plain = MARKUP.sub("", text or "").replace("``", "`").replace("\\[", "[").strip()
    return re.sub(r"\n\s+", "\n", plain).replace("<", "&lt;")


if __name__ == "__main__":
    print({"cli": cli, "settings": settings}[sys.argv[1]]())
