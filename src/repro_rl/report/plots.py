"""Figures as SVG text, in one restrained style.

Text stays text (crisp, selectable, in the page's font) and takes the page's colours, so one figure serves the
light and the dark page. Legends are HTML beside the figure: they wrap, and never cover data. Nothing from a
run folder is drawn as text here except numbers, so no label can break the SVG.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, MaxNLocator

from repro_rl.report.pick import visible
from repro_rl.study.stats import mean_interval

# Okabe and Ito (2008): apart for every common colour blindness; black and yellow left out for the two pages.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "10 4", "1 3")
WON, LOST = PALETTE[0], PALETTE[1]

# Drawn in these, then replaced by the page's own.
_INK, _GRID = "#0a0b0c", "#0a0b0d"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "repro-rl",  # the same figure is the same text
    "font.family": "DejaVu Sans",  # wide, so whatever font the page has fits
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
}


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
    faint: bool = False


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
    x: str,
    y: str,
    *,
    note: str = "",
    span: tuple[float, float] | None = None,
    size: tuple[float, float] = (4.3, 2.6),
    legend: bool | str = True,
) -> Figure | None:
    """Draw ``lines``; None when none has a point.

    ``span`` fixes the y axis; otherwise it holds 0, so that a small wiggle looks small. The x axis
    starts at 0.
    ``legend``: False for none, "always" for one even beside a single line.
    """
    lines = [line for line in lines if len(line.y)]
    if not lines:
        return None
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=size)
        width, height = size  # margins in inches, alike in all; a constrained layout would draw all twice
        canvas.subplots_adjust(0.8 / width, 0.48 / height, 1 - 0.16 / width, 1 - 0.18 / height)
        axes = canvas.subplots()
        for line in lines:
            _plot(axes, line)
        low, high = axes.get_ylim()
        if span:
            margin = 0.02 * (span[1] - span[0])
            axes.set_ylim(span[0] - margin, span[1] + margin)
        else:
            axes.set_ylim(min(low, 0), max(high, 0))
            if low < 0:
                axes.axhline(0, color=_INK, linewidth=0.7)
        if min(min(line.x) for line in lines) >= 0:
            axes.set_xlim(left=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        if max(max(line.x) for line in lines) >= 10_000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        svg = _svg(canvas, visible(f"{title}: {y} against {x}"))
    shown = [line for line in lines if line.label] if legend else []
    return Figure(title, svg, shown if len(shown) > 1 or legend == "always" else [], note)


def themed(text: str) -> str:
    """Colours of the palette as the variables that the page sets, brighter on the dark one."""
    for index, color in enumerate(PALETTE):
        text = re.sub(color, f"var(--c{index})", text, flags=re.I)
    return text


def band(label: str, x: Sequence[float], rows: np.ndarray[Any, Any], color: str, dash: str = "") -> Line:
    """The mean of ``rows`` [n, len(x)] with its 95 % t interval; no band below 3 rows: t of two is a wall."""
    spans = [mean_interval(column.tolist()) for column in rows.T] if len(rows) else []
    known = len(rows) > 2
    return Line(
        label,
        list(x) if spans else [],
        [span.mean for span in spans],
        color,
        dash,
        [span.low for span in spans] if known else None,
        [span.high for span in spans] if known else None,
    )


def _plot(axes: Any, line: Line) -> None:
    dash: Any = "-"
    if line.dash:
        dash = (0, tuple(float(part) / 1.5 for part in line.dash.split()))
    alpha = 0.45 if line.faint else 1.0
    if line.low is not None and line.high is not None and line.bars:
        y = np.asarray(line.y)
        # The point may lie outside a foreign interval by rounding; a negative bar is an error to matplotlib.
        errors = np.maximum(0, [y - np.asarray(line.low), np.asarray(line.high) - y])
        axes.errorbar(
            line.x, y, errors, color=line.color, marker="o", markersize=4, capsize=2.5, elinewidth=1,
            linestyle=dash, linewidth=1,
        )  # fmt: skip
        return
    marker = "o" if len(line.y) <= 3 else None
    axes.plot(line.x, line.y, color=line.color, linestyle=dash, marker=marker, markersize=3.5, alpha=alpha)
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=line.color, alpha=0.16, linewidth=0)


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
