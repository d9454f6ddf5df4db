"""The pages of a pilot study: pilot.json, Markdown to paste, and a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from repro_rl.errors import counted
from repro_rl.report.comparison_tables import by_type
from repro_rl.report.load import Json
from repro_rl.report.template import dump_yaml, fill, write_pages
from repro_rl.report.text_table import (
    Bar,
    Table,
    bar,
    drawn,
    interval_cell,
    join_markdown,
    make_table,
    markdown,
    number,
    signed,
)
from repro_rl.study.numerals import DASH

QUESTIONS = {
    ("meta", "base"): "Asking for progress while acting, against only acting",
    ("retrospective", "base"): "Showing demonstrations with retrospective progress, against showing nothing",
    ("retrospective", "random"): "Retrospective against random progress in the same demonstrations",
    ("retrospective", "plain"): "Retrospective progress against none in the same demonstrations",
}


def write_pilot(data: Json, out: Path) -> list[Path]:
    """Write pilot.json, pilot.md and pilot.html; return the paths."""
    return write_pages(out / "pilot", data, as_markdown(data), as_html(data))


def heading(data: Json) -> str:
    """The model, the panel, the temperature, the number of rollouts and the seeds."""
    rollouts, seeds = data["rollouts_per_task"], data["seeds"]
    parts = [data["agent"], data["panel"] or data["digest"]]
    if data["temperature"] is not None:  # older results lack settings
        parts.append(f"temperature {data['temperature']}")
    if rollouts is not None:
        parts.append(f"{counted(rollouts, 'rollout')} a task")
    return ", ".join([*parts, f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}"])


def basis(data: Json) -> str:
    return "seeds × tasks" if len(data["seeds"]) > 1 else "tasks"


def tables(data: Json) -> list[Table]:
    """All tables, in the order they are read."""
    result = [_conditions(data, metric) for metric in data["metrics"]]
    result += [_differences(data, metric) for metric in data["metrics"]]
    typed = by_type({"arms": data["conditions"]}, "condition")
    return [table for table in (*result, typed) if table.rows]


def headline(data: Json) -> list[str]:
    """One sentence a difference that the study is about."""
    lines = []
    for pair in data["differences"]:
        compared = (pair["one"], pair["other"])
        if pair["metric"] != "success" or compared not in QUESTIONS:
            continue
        cells = [
            row["success"]["mean"] for row in data["conditions"] if row["name"] in compared and row["seeds"]
        ]
        if cells and not any(cells):
            lines.append(
                f"{QUESTIONS[compared]}: no episode was won in either, so there is nothing to compare."
            )
            continue
        points = None if pair["mean"] is None else 100 * pair["mean"]
        lines.append(f"{QUESTIONS[compared]}: {signed(points, 1)} points {_verdict(pair['tasks'])}.")
    return lines


def _verdict(ends: list[float] | None) -> str:
    if ends is None:
        return "(no interval)"
    low, high = (signed(100 * end, 1) for end in ends)
    excludes_zero = ends[0] > 0 or ends[1] < 0
    return f"[{low}, {high}]{'' if excludes_zero else ', which may be none'}"


def _conditions(data: Json, metric: str) -> Table:
    rows: list[list[str]] = []
    bars: list[Bar | None] = []
    for row in data["conditions"]:
        cell = row[metric]
        if row["seeds"]:
            cells = [
                *(str(len(row["seeds"])), number(cell["mean"])),
                *(interval_cell(cell[name]) for name in ("tasks", "t")),
                number(row["length"], 1),
                *(number(row[name]) for name in ("invalid_rate", "format_rate")),
                *(number(row["errors"], 1), row["words"]),
            ]
            rows.append([row["name"], *cells])
            bars.append(bar(cell["mean"], cell["tasks"]))
        elif row["left_out"]:
            rows.append([row["name"], "0", *[DASH] * 7, row["left_out"]])
            bars.append(None)
    return make_table("conditions", rows, bars, metric=metric.capitalize(), basis=basis(data))


def _differences(data: Json, metric: str) -> Table:
    pairs = [pair for pair in data["differences"] if pair["metric"] == metric]
    rows = [
        [
            f"{pair['one']} − {pair['other']}",
            str(len(pair["seeds"])),
            signed(pair["mean"]),
            *(interval_cell(pair[name], sign=True) for name in ("tasks", "t")),
            " ".join(signed(value) for value in pair["by_seed"].values()),
        ]
        for pair in pairs
    ]
    bars = [bar(pair["mean"], pair["tasks"]) for pair in pairs]
    return make_table("condition_differences", rows, bars, metric=metric, basis=basis(data))


def as_markdown(data: Json) -> str:
    """Every table, in the form the documentation uses."""
    parts = [f"{heading(data)}. repro-rl {data['version']}, revision {data['git'] or 'unknown'}."]
    parts += [f"- {note}" for note in [*headline(data), *data["notes"]]]
    return join_markdown([*parts, *map(markdown, tables(data))])


def as_html(data: Json) -> str:
    """The page's text. It holds all it shows, runs no script and requests nothing."""
    descriptions = {row["name"]: row["words"] for row in data["conditions"]}
    return fill(
        "pilot.html.jinja",
        agent=data["agent"],
        heading=heading(data),
        revision=data["git"] or "unknown",
        made=data["made"],
        headline=headline(data),
        notes=data["notes"],
        tables=[drawn(table) for table in tables(data)],
        prompts=[(name, descriptions[name], text) for name, text in data["prompts"].items() if text],
        settings=dump_yaml(data["config"]),
    )
