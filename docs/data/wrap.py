"""Wrap the prose of pages at 100 columns: ``python docs/data/wrap.py docs/method.md ...``.

Code blocks, tables, headings and HTML stay as they are. ``--check`` changes nothing and prints the lines
that are too long.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

WIDTH = 100
FENCE = re.compile(r"^\s*(```|~~~)")
ITEM = re.compile(r"^(\s*)((?:[-*+]|\d+[.)])\s+)(.*)$")
KEPT = re.compile(r"^\s*(#|\||<|!\[|\$\$|:::|\[\^|$)")  # a line that is no prose, or has a shape of its own
# Words that would begin a list, a heading or a table if a line began with them.
UNSAFE = re.compile(r" (?=(?:[-+*|>]|#+|\d+[.)])(?: |$))")


def wrapped(text: str) -> str:
    """The page with its paragraphs and list items wrapped."""
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    block: list[str] = []  # of one paragraph or item
    closing: str | None = None  # what ends the part that is kept
    for line in lines:
        if closing is not None:
            yield line
            closing = None if closing in line else closing
        elif FENCE.match(line) or line.strip() == "$$" or (line.startswith("$$") and line.count("$$") == 1):
            yield from _fill(block)
            block = []
            closing = "$$" if line.startswith("$$") else "```"
            yield line
        elif KEPT.match(line):
            yield from _fill(block)
            block = []
            yield line
        elif ITEM.match(line):
            yield from _fill(block)
            block = [line]
        else:
            block.append(line)
    yield from _fill(block)


def _fill(block: list[str]) -> list[str]:
    if not block:
        return []
    if all(len(line) <= WIDTH for line in block):
        return block
    item = ITEM.match(block[0])
    first = item[1] + item[2] if item else re.match(r"\s*", block[0])[0]  # type: ignore[index]
    rest = " " * len(first) if item else first
    text = " ".join(line.strip() for line in [item[3] if item else block[0], *block[1:]])
    safe = UNSAFE.sub("\0", text)
    lines = textwrap.wrap(
        safe,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines]


def long_lines(text: str) -> list[tuple[int, str]]:
    """Number and text of the lines of prose that are too long; one long word (an address) is no fault."""
    found, closing = [], None
    for number, line in enumerate(text.split("\n"), 1):
        if closing is not None:
            closing = None if closing in line else closing
        elif FENCE.match(line):
            closing = "```"
        elif len(line) > WIDTH and not KEPT.match(line) and len(line.split()) > 2:
            found.append((number, line))
    return found


GENERATED = ("settings.md", "capabilities.md")  # as the code writes them


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    for page in given.pages:
        if page.name in GENERATED:
            continue
        text = page.read_text(encoding="utf-8")
        if given.check:
            for number, line in long_lines(text):
                print(f"{page}:{number}: {len(line)} columns")
        else:
            page.write_text(wrapped(text), encoding="utf-8")


if __name__ == "__main__":
    main()
