"""Tables of text. Titles, heads and notes are in tables.yaml; page, Markdown and terminal print the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from repro_rl.files import TABLE, read_yaml
from repro_rl.report.load import Json
from repro_rl.study.numerals import DASH, fixed

Bar = tuple[float, float, float]  # low, mean, high


@dataclass(slots=True)
class Table:
    """A table of text. ``bars``: per row an interval to draw, on ``scale``."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""
    bars: list[Bar | None] = field(default_factory=list)
    last_is_text: bool = True  # the last column is no number
    scale: tuple[float, float] = (0.0, 1.0)


@dataclass(slots=True, frozen=True)
class TableText:
    """What a table says around its cells; {names} are filled in."""

    __pydantic_config__ = TABLE
    title: str
    head: list[str]
    note: str = ""
    bars: Literal["rates", "differences"] | None = None  # what its bars show; such a table ends with text


TEXTS = read_yaml(Path(__file__).with_name("tables.yaml"), dict[str, TableText])


def make_table(
    name: str,
    rows: list[list[str]],
    bars: Sequence[Bar | None] = (),
    /,
    *,
    columns: Sequence[str] = (),
    **values: object,
) -> Table:
    """The table ``name`` of tables.yaml. ``columns`` follow its own; ``values`` fill its texts in."""
    text = TEXTS[name]
    ends = [end for bar in bars if bar for end in bar]
    if text.bars == "differences":
        widest = max(map(abs, ends), default=1.0) or 1.0
        scale = (-widest, widest)
    else:
        scale = (0.0, min(1.0, math.ceil(10 * max(ends, default=1.0)) / 10) or 1.0)
    return Table(
        text.title.format(**values),
        [*(cell.format(**values) for cell in text.head), *columns],
        rows,
        text.note.format(**values),
        list(bars),
        last_is_text=text.bars is not None,
        scale=scale,
    )


def number(value: float | None, digits: int = 3) -> str:
    """``value`` with so many decimals; a dash for None."""
    return fixed(value, digits)


def signed(value: float | None, digits: int = 3) -> str:
    """As ``number``, with a plus before what is not negative."""
    return fixed(value, digits, sign=True)


def interval_cell(ends: Sequence[float] | None, sign: bool = False) -> str:
    """``[low, high]``; a dash for None. ``sign``: as ``signed`` writes the ends."""
    write = signed if sign else number
    return DASH if ends is None else f"[{write(ends[0])}, {write(ends[1])}]"


def series_title(which: str) -> str:
    """What a progress series is called."""
    return "True progress" if which == "truth" else f"{which.capitalize()} progress"


def bar(mean: float | None, ends: Sequence[float] | None) -> Bar | None:
    """(low, mean, high) of a drawn interval; without ``ends`` a point, without ``mean`` nothing."""
    if mean is None:
        return None
    return (mean, mean, mean) if ends is None else (ends[0], mean, ends[1])


def drawn(table: Table) -> Json:
    """A table and its bars in the units of the drawing, 0..100."""
    low, high = table.scale

    def position(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    bars = [bar and [position(value) for value in bar] for bar in table.bars]
    return {"table": table, "bars": bars, "zero": position(0)}


def markdown(table: Table) -> str:
    """A table as Markdown; what would end a cell or begin markup is escaped."""
    rows = ["| " + " | ".join(map(_cell, row)) + " |" for row in (table.head, *table.rows)]
    lines = [rows[0], "|" + "---|" * len(table.head), *rows[1:]]
    return f"### {_cell(table.title)}\n\n" + "\n".join(lines) + (f"\n\n{table.note}" if table.note else "")


def join_markdown(parts: Sequence[str]) -> str:
    """Paragraphs, lists and tables as one text; the items of a list stay together."""
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def _cell(text: str) -> str:
    for char in "\\|`<>*_[]":
        if char in "[]" or (char == "_" and "__" not in text):
            continue  # intervals, and names with one underscore, read better as they are
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())
