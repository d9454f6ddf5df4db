"""The reference of the commands, from the code: ``python docs/data/reference.py``.

The site puts it where a page says ``<!-- generated: cli -->`` (``docs/data/site.py``), so it is never behind
the code. The settings are listed by ``repro-rl settings --markdown``, in docs/settings.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

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


def _cell(text: str | None) -> str:
    return _plain(text).replace("|", "\\|").replace("\n", " ")


def _plain(text: str | None) -> str:
    """A help text without rich's markup; ``name`` as `name`; < and * as they are written."""
    plain = MARKUP.sub("", text or "").replace("``", "`").replace("\\[", "[").strip()
    return re.sub(r"\n\s+", "\n", plain).replace("<", "&lt;")


if __name__ == "__main__":
    print(cli())
