"""One way to fill a page's template: everything from data is escaped, and unseen characters are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import repro_rl
from repro_rl.report import pick
from repro_rl.report.plots import themed

TEMPLATES = Path(__file__).with_name("templates")


def fill(name: str, **values: Any) -> str:
    """The text of template ``name``; ``style`` and ``version`` are added. A name left out is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters["themed"] = themed
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(name).render(style=style, version=repro_rl.__version__, **values)


def _printable(value: Any) -> Any:
    """The template's texts with unseen characters shown; markup of our own is left alone."""
    return pick.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
