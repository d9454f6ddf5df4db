"""What the site does to a page before it is rendered (a hook of mkdocs, named in mkdocs.yml).

GitHub and Python-Markdown read lists and tables differently: GitHub needs no blank line before them. The
pages are written for GitHub, so the blank lines are put in here. Generated parts are filled in as well. Links
to files of the repository that lie outside of docs, which the site does not have, become plain text.
Intervals and errors in tables are kept on one line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import reference

FENCE = re.compile(r"^\s*(```|~~~)")
ITEM = re.compile(r"^(\s*)([-*+]|\d+\.) ")
OUTSIDE = re.compile(r"\[`?([^\]`]+)`?\]\(\.\./[^)]*\)")  # a link out of docs
# The spaces of [low, high], a ± b and a : b
WITHIN = re.compile(r"(?<=\d,) (?=[−+-]?[\d.]+\])|(?<=\d) (?=[±:] [.\d])|(?<=\d [±:]) (?=[.\d])")
GENERATED = {"<!-- generated: cli -->": reference.cli}


def on_page_markdown(markdown: str, **_: Any) -> str:
    for marker, make in GENERATED.items():
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    markdown = OUTSIDE.sub(r"`\1`", markdown)
    return "\n".join(separated(markdown.split("\n")))


def separated(lines: list[str]) -> Iterator[str]:
    """The lines with a blank one before every list and table, and items indented as Python-Markdown needs."""
    fenced, before = False, ""
    for line in lines:
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            starts = (ITEM.match(line) and not _continues_list(before)) or (
                line.startswith("|") and not before.startswith("|")
            )
            if starts and before.strip():
                yield ""
            if line.startswith("|"):
                line = _unbroken(line)
            nested = re.match(r"^( {2,3})(?=\S)", line)
            if nested:  # Python-Markdown wants four
                line = "    " + line.lstrip()
        yield line
        before = line


def _unbroken(row: str) -> str:
    """A row of a table with no-break spaces within its figures; its code stays as it is."""
    parts = row.split("`")
    parts[::2] = [WITHIN.sub("\N{NO-BREAK SPACE}", part) for part in parts[::2]]
    return "`".join(parts)


def _continues_list(before: str) -> bool:
    """Whether the line above belongs to a list item."""
    return bool(ITEM.match(before)) or before.startswith(" ")
