"""The pages of the progress analysis: a self-contained HTML page and Markdown to paste."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import repro_rl
from repro_rl.report.lines import DASHES, LOST, PALETTE, WON, Axes, Line
from repro_rl.report.load import Json
from repro_rl.report.pick import visible
from repro_rl.report.plots import Figure, draw
from repro_rl.report.progress_tables import (
    agreement_table,
    closeness_table,
    method_tables,
    of_set,
    paired_table,
    reliability_tables,
    side_by_side,
)
from repro_rl.report.template import fill, write_pages
from repro_rl.report.text_table import join_markdown, markdown

COLORS = {"retrospective": PALETTE[0], "online": PALETTE[4]}
DASH = {"retrospective": "", "online": DASHES[1]}
GREY = PALETTE[6]


def write_progress(data: Json, out: Path) -> list[Path]:
    """Write progress.json, .md and .html of ``study.progress_report.analyse``; return the paths."""
    return write_pages(out / "progress", data, as_markdown(data), as_html(data))


def as_markdown(data: Json) -> str:
    """Findings, warnings and every table."""
    parts = [f"Quality of the progress signal, repro-rl {repro_rl.__version__}."]
    closeness = closeness_table(data)
    first = [closeness] if closeness.rows else []
    parts += [markdown(table) for table in (*first, *side_by_side(data), *method_tables(data))]
    for row in data["sets"]:
        parts.append(f"## {_plain(heading(row))}")
        parts.append(_plain(basis(row)))
        parts += [f"- {_plain(line)}" for line in row["findings"]]
        parts += [f"- Warning: {_plain(line)}" for line in row["warnings"]]
        parts += [markdown(table) for table in of_set(row)]
    return visible(join_markdown(parts))


def as_html(data: Json) -> str:
    """The page's text. It holds all it shows, runs no script and requests nothing."""
    runs = list(dict.fromkeys(row["run"] for row in data["sets"]))
    return fill(
        "progress.html.jinja",
        title=", ".join(runs[:4]) + (f" and {len(runs) - 4} more" if len(runs) > 4 else ""),
        resamples=data["settings"]["resamples"],
        closer=closeness_table(data),
        overview=side_by_side(data),
        methods=method_tables(data),
        sets=[
            {
                "heading": heading(row),
                "basis": basis(row),
                "findings": row["findings"],
                "warnings": row["warnings"],
                "figures": figures(row),
                "tables": [paired_table(row), agreement_table(row)],
                "bins": [table for table in reliability_tables(row) if table.rows],
            }
            for row in data["sets"]
        ],
    )


def heading(row: Json) -> str:
    return f"{row['run']}, {row['name']}"


def basis(row: Json) -> str:
    """The episodes and the resampling behind the figures of a set."""
    return (
        f"Method {row['method']}, seed {row['seed']}. {row['episodes']} finished episodes of {row['tasks']} "
        f"tasks, {row['successes']} won and {row['failures']} lost. Intervals: 95 %, from resampling "
        f"{row['clusters']} {row['resampled']}."
    )


def figures(row: Json) -> list[Figure]:
    """Reliability, progress over the episode, and rank correlations, where there is something to draw."""
    series = {which: row["series"][which] for which in COLORS if which in row["series"]}
    drawn = [
        _reliability(series, "truth", "True against reported progress", "true progress, %"),
        _reliability(series, "success", "Eventual success against reported progress", "episodes won, %"),
        *(_curves(which, block, row["series"].get("truth")) for which, block in series.items()),
        *(_ranks(series, part) for part in ("success", "failure")),
    ]
    return [figure for figure in drawn if figure is not None]


def _reliability(series: Json, against: str, title: str, y: str) -> Figure | None:
    lines = []
    for which, block in series.items():
        bins = (block["reliability"][against] or {"bins": []})["bins"]
        reached = [bin["met"] for bin in bins]
        values = [m["value"] for m in reached]
        low = [m["value"] if m["low"] is None else m["low"] for m in reached]
        high = [m["value"] if m["high"] is None else m["high"] for m in reached]
        reported = [bin["said"] for bin in bins]
        lines.append(Line(which, reported, values, COLORS[which], DASH[which], low, high, bars=True))
    if not any(len(line.y) for line in lines):
        return None
    exact = Line("reported = reached", [0, 100], [0, 100], GREY, DASHES[2])
    note = (
        "Steps in bins of 10 points of reported progress, 95 % intervals. "
        "On the dotted line the reported progress is reached exactly."
    )
    if against == "success":
        note += " Steps before the last. The retrospective judge knows the outcome: no forecast."
    return draw(title, [*lines, exact], Axes("reported progress, %", y, (0, 100)), note=note)


def _curves(which: str, block: Json, truth: Json | None) -> Figure | None:
    grid = np.linspace(0, 100, 11).tolist()
    lines = []
    for part, color, name in (("success", WON, "won"), ("failure", LOST, "lost")):
        curve = block["curves"][part]
        label = f"{name}, reported ({curve['episodes']})"
        x = grid if curve["mean"] else []
        lines.append(Line(label, x, curve["mean"], color, "", curve["low"], curve["high"]))
        if truth and truth["curves"][part]["mean"]:
            lines.append(Line(f"{name}, truth", grid, truth["curves"][part]["mean"], color, DASHES[2]))
    if not any(line.label.endswith(")") and len(line.y) for line in lines):
        return None
    return draw(
        f"{which.capitalize()} progress over the episode",
        lines,
        Axes("part of the episode, %", "progress, %", (0, 100)),
        note="Mean over episodes (number in brackets), each stretched to the same length, with 95 % t "
        "intervals. The truth is over all episodes that have one.",
    )


def _ranks(series: Json, part: str) -> Figure | None:
    lines, notes = [], []
    for which, block in series.items():
        counts, total = block["ranks"][part]["counts"], block["ranks"][part]["episodes"]
        if not total:
            continue
        edges = np.linspace(-1, 1, len(counts) + 1)
        x = [edges[0], *np.repeat(edges[1:-1], 2).tolist(), edges[-1]]
        y = np.repeat([100 * count / total for count in counts], 2).tolist()
        lines.append(Line(f"{which} ({total})", x, y, COLORS[which], DASH[which]))
        constant = block["measures"].get(f"constant_{part}", {}).get("value")
        if constant:
            notes.append(f"{which}: {100 * constant:.0f} % never change and are left out")
    name = "successes" if part == "success" else "failures"
    note = "Spearman with the truth in each episode with at least 3 steps on which both vary."
    return draw(
        f"Rank correlation within {name}",
        lines,
        Axes("rank correlation with the truth", "episodes, %"),
        note=f"{note} {'; '.join(notes)}{'.' if notes else ''}".strip(),
        legend="always",
    )


def _plain(text: str) -> str:
    """Text from data for running Markdown: without markup, on one line."""
    for char in "\\`<>*#":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())
