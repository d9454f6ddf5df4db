"""Fill a page's template: text from data is escaped, and its invisible characters are shown as symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

import repro_rl
from repro_rl.files import write_json, write_text
from repro_rl.report.lines import themed
from repro_rl.report.pick import visible

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


def write_pages(stem: Path, data: Any, markdown: str, html: str) -> list[Path]:
    """Write ``data`` to ``stem``.json, and its pages to ``stem``.md and ``stem``.html; return the paths."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "md", "html")]
    write_json(paths[0], data)
    write_text(paths[1], markdown)
    write_text(paths[2], html)
    return paths


def dump_yaml(value: Any) -> str:
    """Settings as YAML text for a page."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110))


def _printable(value: Any) -> Any:
    """Text with invisible characters shown as symbols; the package's own markup is unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
