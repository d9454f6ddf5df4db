"""Drawing with matplotlib: one plot of lines as SVG, and small multiples as files. The extra "plots"."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, MaxNLocator

from repro_rl.report.lines import PALETTE, Axes, Line, Ranked, Spread, themed

STYLE = matplotlib.rc_params_from_file(
    Path(__file__).with_name("figures.mplstyle"), use_default_template=False
)
INK, GRID = STYLE["text.color"], STYLE["grid.color"]  # placeholders, replaced by the page's own colours


def line_plot(lines: Sequence[Line], axes: Axes, size: tuple[float, float], description: str) -> Markup:
    """``lines`` as SVG. ``size``: width and height in inches. ``description``: for who cannot see it."""
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=size)
        width, height = size  # margins in inches, equal in all figures; a constrained layout draws twice
        canvas.subplots_adjust(0.8 / width, 0.48 / height, 1 - 0.16 / width, 1 - 0.18 / height)
        plot = canvas.subplots()
        for line in lines:
            _plot(plot, line)
        _scale(plot, lines, axes)
        return _svg(canvas, description)


def small_multiples(lines: Sequence[Line], reference: Line, title: str) -> dict[str, bytes]:
    """Every line with its band in a plot of its own, over the dashed ``reference``, as SVG and PNG.

    ``x``: environment steps; ``y``: validation success.
    """
    columns = min(4, len(lines))
    rows = -(-len(lines) // columns)
    with matplotlib.rc_context({"svg.hashsalt": "repro-rl", "font.size": 8.5}):
        canvas = Canvas(figsize=(2.7 * columns, 2.2 * rows + 0.3), layout="constrained")
        grid = np.atleast_1d(canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
        for plot, line in zip(grid, lines, strict=False):
            _small_plot(plot, line, reference)
        for plot in grid[len(lines) :]:
            plot.set_visible(False)
        grid[0].set_ylim(bottom=0)
        canvas.supxlabel("environment steps (thousands)", fontsize=9)
        canvas.supylabel("validation success", fontsize=9)
        canvas.suptitle(title, fontsize=9, parse_math=False)
        return _files(canvas)


def ranking(arms: Sequence[Ranked], reference: str, metric: str) -> dict[str, bytes]:
    """``arms`` from above, each with its interval and seeds, as SVG and PNG.

    On the left the results, 0 to 1; on the right ``reference`` minus each arm, where there are differences.
    A difference is coloured where its interval leaves out 0.
    """
    paired = any(arm.difference is not None for arm in arms)
    places = [float(place) for place in range(len(arms), 0, -1)]
    with matplotlib.rc_context({"svg.hashsalt": "repro-rl", "font.size": 8.5}):
        size = (8.2 if paired else 5.2, 0.24 * len(arms) + 1.0)
        canvas = Canvas(figsize=size, layout="constrained")
        plots = np.atleast_1d(canvas.subplots(1, 1 + paired, sharey=True))
        for place, arm in zip(places, arms, strict=True):
            chosen = arm.label == reference
            _spread(plots[0], place, arm.result, PALETTE[1] if chosen else PALETTE[0])
            if arm.difference is not None:
                color = PALETTE[0] if arm.difference.leaves_out_zero else PALETTE[6]
                _spread(plots[1], place, arm.difference, color)
        plots[0].set_yticks(places)
        for label, arm in zip(plots[0].set_yticklabels([arm.label for arm in arms]), arms, strict=True):
            label.set_parse_math(False)
            label.set_color(PALETTE[1] if arm.label == reference else "black")
        plots[0].set_xlim(0, min(1.0, plots[0].get_xlim()[1]))  # with two seeds intervals reach far outside
        plots[0].set_ylim(0.3, len(arms) + 0.7)
        plots[0].set_xlabel(metric)
        for plot in plots:
            plot.xaxis.set_major_locator(MaxNLocator(5))
            plot.grid(alpha=0.25)
            plot.spines[["top", "right"]].set_visible(False)
        if paired:
            plots[1].axvline(0, color="black", linewidth=0.8)
            low, high = plots[1].get_xlim()
            plots[1].set_xlim(max(-1.0, low), min(1.0, high))
            plots[1].set_xlabel(f"{reference} minus it, paired by seed", parse_math=False)
        title = "mean and 95 % t-interval over seeds; ticks: seeds"
        canvas.suptitle(title, fontsize=9, parse_math=False)
        return _files(canvas)


def _spread(plot: Any, place: float, spread: Spread, color: str) -> None:
    """A point with its interval and the seeds, ``place`` up."""
    heights = [place] * len(spread.by_seed)
    plot.scatter(spread.by_seed, heights, s=45, marker="|", color=color, alpha=0.7, linewidths=0.9)
    if spread.interval is not None:
        plot.plot(spread.interval, [place, place], color=color, linewidth=1.6)
    plot.plot([spread.mean], [place], color=color, marker="o", markersize=4)


def _files(canvas: Canvas) -> dict[str, bytes]:
    """The drawing as SVG and as PNG."""
    files = {}
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 130})):
        buffer = io.BytesIO()
        canvas.savefig(buffer, format=kind, **options)
        files[kind] = buffer.getvalue()
    return files


def _small_plot(plot: Any, line: Line, reference: Line) -> None:
    if len(reference.x) and line.label != reference.label:
        steps, look = np.array(reference.x) / 1000, {"color": "#777777", "linewidth": 1, "linestyle": "--"}
        plot.plot(steps, reference.y, marker=_marker(reference), markersize=3.5, **look)
    x = (np.array(line.x) / 1000).tolist()
    plot.plot(x, line.y, color=line.color, linewidth=1.6, marker=_marker(line), markersize=3.5)
    _fill(plot, x, line, alpha=0.18)
    # A $ in a name must not begin a formula.
    plot.set_title(line.label, fontsize=9, parse_math=False)
    plot.grid(alpha=0.25)
    plot.spines[["top", "right"]].set_visible(False)


def _scale(plot: Any, lines: Sequence[Line], axes: Axes) -> None:
    low, high = plot.get_ylim()
    if axes.span:
        margin = 0.02 * (axes.span[1] - axes.span[0])
        plot.set_ylim(axes.span[0] - margin, axes.span[1] + margin)
    else:
        plot.set_ylim(min(low, 0), max(high, 0))
        if low < 0:
            plot.axhline(0, color=INK, linewidth=0.7)
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
    plot.plot(line.x, line.y, color=line.color, linestyle=dash, marker=_marker(line), markersize=3.5)
    _fill(plot, line.x, line, alpha=0.16)


def _marker(line: Line) -> str | None:
    """Points of a line of few: one alone would not be seen."""
    return "o" if len(line.y) <= 3 else None


def _fill(plot: Any, x: Sequence[float], line: Line, alpha: float) -> None:
    """The band of a line, where it has one; of a single point a bar, as a band has no width there."""
    if line.low is None or line.high is None:
        return
    if len(x) == 1:
        plot.vlines(x, line.low, line.high, color=line.color, linewidth=1)
    else:
        plot.fill_between(x, line.low, line.high, color=line.color, alpha=alpha, linewidth=0)


def _svg(canvas: Any, description: str) -> Markup:
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    canvas.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without the XML prolog, which HTML does not know
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.S)  # would apply to the whole page
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)  # the page sets the width
    text = themed(text).replace(INK, "currentColor").replace(GRID, "var(--grid)")
    text = text.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "").replace("xlink:href", "href")
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]  # ids are per page, not per figure
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    label = escape(description)
    return Markup(text.replace("<svg ", f'<svg class="plot" role="img" aria-label="{label}" ', 1).strip())
