"""Figures as SVG text, in one restrained style.

Text stays text (selectable, in the page's font) and takes the page's colours, so one figure serves the light
and the dark page. Legends are HTML beside the figure: they wrap, and never cover data. Nothing from a
run folder is drawn as text here except numbers, so no label can break the SVG.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, MaxNLocator

from repro_rl.report.pick import visible
from repro_rl.study.stats import column_intervals

# Okabe and Ito (2008): distinct for every common colour blindness. Black and yellow are left out, as they
# cannot be seen on the dark and the light page.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "10 4", "1 3")
WON, LOST = PALETTE[0], PALETTE[1]

_STYLE = matplotlib.rc_params_from_file(
    Path(__file__).with_name("figures.mplstyle"), use_default_template=False
)
_INK, _GRID = _STYLE["text.color"], _STYLE["grid.color"]  # placeholders, replaced by the page's own colours


@dataclass(slots=True)
class Line:
    """One line. ``x``, ``y``: [n]; ``low``/``high``: [n], a band, or error bars where ``bars``."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = PALETTE[0]
    dash: str = ""  # SVG dash array
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    bars: bool = False


@dataclass(slots=True, frozen=True)
class Axes:
    """Labels of the axes. The x axis starts at 0.

    ``span`` fixes the y axis; without one it includes 0, so that small changes look small.
    """

    x: str
    y: str
    span: tuple[float, float] | None = None


@dataclass(slots=True)
class Figure:
    """A drawn figure with what the page writes around it."""

    title: str
    svg: Markup
    legend: list[Line] = field(default_factory=list)
    note: str = ""


def draw(
    title: str,
    lines: Sequence[Line],
    axes: Axes,
    *,
    note: str = "",
    size: tuple[float, float] = (4.3, 2.6),
    legend: bool | str = True,
) -> Figure | None:
    """Draw ``lines``; None when none has a point.

    ``size``: width and height in inches. ``legend``: False for none, "always" for one beside a single line
    too.
    """
    lines = [line for line in lines if len(line.y)]
    if not lines:
        return None
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=size)
        width, height = size  # margins in inches, equal in all figures; a constrained layout draws twice
        canvas.subplots_adjust(0.8 / width, 0.48 / height, 1 - 0.16 / width, 1 - 0.18 / height)
        plot = canvas.subplots()
        for line in lines:
            _plot(plot, line)
        _scale(plot, lines, axes)
        svg = _svg(canvas, visible(f"{title}: {axes.y} against {axes.x}"))
    entries = [line for line in lines if line.label] if legend else []
    return Figure(title, svg, entries if len(entries) > 1 or legend == "always" else [], note)


def themed(text: str) -> str:
    """Colours of the palette as the variables that the page sets, brighter on the dark one."""
    for index, color in enumerate(PALETTE):
        text = re.sub(color, f"var(--c{index})", text, flags=re.I)
    return text


def band(label: str, x: Sequence[float], rows: np.ndarray[Any, Any], color: str, dash: str = "") -> Line:
    """The mean of ``rows`` [n, len(x)] with its 95 % t interval, see ``column_intervals``."""
    spans = column_intervals(rows)
    return Line(label, x if len(rows) else [], spans["mean"] or [], color, dash, spans["low"], spans["high"])


def _scale(plot: Any, lines: Sequence[Line], axes: Axes) -> None:
    low, high = plot.get_ylim()
    if axes.span:
        margin = 0.02 * (axes.span[1] - axes.span[0])
        plot.set_ylim(axes.span[0] - margin, axes.span[1] + margin)
    else:
        plot.set_ylim(min(low, 0), max(high, 0))
        if low < 0:
            plot.axhline(0, color=_INK, linewidth=0.7)
    if min(min(line.x) for line in lines) >= 0:
        plot.set_xlim(left=0)
    plot.set_xlabel(axes.x)
    plot.set_ylabel(axes.y)
    plot.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if max(max(line.x) for line in lines) >= 10_000:
        plot.xaxis.set_major_formatter(EngFormatter(sep=""))


def _plot(plot: Any, line: Line) -> None:
    dash: Any = "-"
    if line.dash:
        dash = (0, tuple(float(part) / 1.5 for part in line.dash.split()))
    if line.low is not None and line.high is not None and line.bars:
        y = np.asarray(line.y)
        # By rounding the point may lie outside a recorded interval; matplotlib refuses negative bars.
        errors = np.maximum(0, [y - np.asarray(line.low), np.asarray(line.high) - y])
        plot.errorbar(
            line.x, y, errors, color=line.color, marker="o", markersize=4, capsize=2.5, elinewidth=1,
            linestyle=dash, linewidth=1,
        )  # fmt: skip
        return
    marker = "o" if len(line.y) <= 3 else None
    plot.plot(line.x, line.y, color=line.color, linestyle=dash, marker=marker, markersize=3.5)
    if line.low is not None and line.high is not None:
        plot.fill_between(line.x, line.low, line.high, color=line.color, alpha=0.16, linewidth=0)


def _svg(canvas: Any, description: str) -> Markup:
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    canvas.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without the XML prolog, which HTML does not know
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.S)  # would apply to the whole page
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)  # the page sets the width
    text = themed(text).replace(_INK, "currentColor").replace(_GRID, "var(--grid)")
    text = text.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "").replace("xlink:href", "href")
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]  # ids are per page, not per figure
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    label = escape(description)
    return Markup(text.replace("<svg ", f'<svg class="plot" role="img" aria-label="{label}" ', 1).strip())
