"""Figures as SVG text, in one restrained style.

Text stays text (selectable, in the page's font) and takes the page's colours, so one figure serves the light
and the dark page. Legends are HTML beside the figure: they wrap, and never cover data. Nothing from a
run folder is drawn as text here except numbers, so no label can break the SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from markupsafe import Markup

from repro_rl.errors import install_command
from repro_rl.report.lines import Axes, Line
from repro_rl.report.pick import visible

WITHOUT_MATPLOTLIB = Markup(f"<p>Not drawn: this figure needs matplotlib, {install_command('plots')}.</p>")


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
    too. Of several lines it names those that have a point, be it one alone.
    """
    alone = len(lines) == 1
    lines = [line for line in lines if len(line.y)]
    if not lines:
        return None
    if can_draw():
        from repro_rl.report.canvas import line_plot

        svg = line_plot(lines, axes, size, visible(f"{title}: {axes.y} against {axes.x}"))
    else:
        svg = WITHOUT_MATPLOTLIB
    entries = [line for line in lines if line.label] if legend else []
    return Figure(title, svg, [] if alone and legend != "always" else entries, note)


def can_draw() -> bool:
    """Whether matplotlib is installed (the extra "plots"). Without it a report has tables alone."""
    return find_spec("matplotlib") is not None
