"""The pages of a pilot study: pilot.json, Markdown to paste, and a self-contained HTML page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from repro_rl.files import write_json, write_text
from repro_rl.report.comparison import drawn
from repro_rl.report.comparison_tables import Table, bar, by_type, interval, markdown, number, signed
from repro_rl.report.template import fill

Json = dict[str, Any]
Bar = tuple[float, float, float] | None


def write_pilot(data: Json, out: Path) -> list[Path]:
    """Write pilot.json, pilot.md and pilot.html; return the paths."""
    paths = [out / f"pilot.{kind}" for kind in ("json", "md", "html")]
    write_json(paths[0], data)
    write_text(paths[1], as_markdown(data))
    write_text(paths[2], as_html(data))
    return paths


def heading(data: Json) -> str:
    """Which model, which tasks, how often, how sampled."""
    rollouts, seeds = data["rollouts_per_task"], data["seeds"]
    return (
        f"{data['agent']}, {data['panel']}, temperature {data['temperature']}, {rollouts} "
        f"rollout{'s' if rollouts != 1 else ''} a task, seed{'s' if len(seeds) != 1 else ''} "
        f"{', '.join(map(str, seeds))}"
    )


def basis(data: Json) -> str:
    return "seeds × tasks" if len(data["seeds"]) > 1 else "tasks"


def tables(data: Json) -> list[Table]:
    """All tables, in the order they are read."""
    found = [_conditions(data, metric) for metric in data["metrics"]]
    found += [_differences(data, metric) for metric in data["metrics"]]
    typed = by_type({"arms": data["conditions"]})
    typed.head[0] = "condition"
    return [table for table in (*found, typed) if table.rows]


def headline(data: Json) -> list[str]:
    """One sentence a difference that the study is about."""
    lines = []
    for pair in data["differences"]:
        asked = (pair["one"], pair["other"])
        if pair["metric"] != "success" or asked not in QUESTIONS:
            continue
        lines.append(
            f"{QUESTIONS[asked]}: {signed(_points(pair['mean']), 1)} points {_verdict(pair['tasks'])}."
        )
    return lines


QUESTIONS = {
    ("meta", "base"): "Asking for progress while acting, against only acting",
    ("retrospective", "base"): "Showing demonstrations with retrospective progress, against showing nothing",
    ("retrospective", "random"): "Retrospective against random progress in the same demonstrations",
    ("retrospective", "plain"): "Retrospective progress against none in the same demonstrations",
}


def _points(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _verdict(ends: list[float] | None) -> str:
    if ends is None:
        return "(no interval)"
    low, high = (signed(100 * end, 1) for end in ends)
    sure = ends[0] > 0 or ends[1] < 0
    return f"[{low}, {high}]{'' if sure else ', which may be none'}"


def _conditions(data: Json, metric: str) -> Table:
    rows: list[list[str]] = []
    bars: list[Bar] = []
    for row in data["conditions"]:
        cell = row[metric]
        if not row["seeds"]:
            if row["left_out"]:
                rows.append([row["name"], "0", *["–"] * 7, row["left_out"]])
                bars.append(None)
            continue
        ends = cell["tasks"]
        rows.append(
            [
                row["name"],
                str(len(row["seeds"])),
                number(cell["mean"]),
                interval(ends),
                interval(cell["t"]),
                number(row["length"], 1),
                number(row["invalid_rate"]),
                number(row["format_rate"]),
                number(row["errors"], 1),
                row["words"],
            ]
        )
        bars.append(bar(cell["mean"], ends))
    top = max((bar[2] for bar in bars if bar), default=1.0)
    return Table(
        f"{metric.capitalize()} by condition",
        [
            *("condition", "seeds", "mean", f"95 % {basis(data)}", "95 % t", "steps", "invalid", "format"),
            *("broke off", "what the prompt asks and shows"),
        ],
        rows,
        f"95 % {basis(data)}: bootstrap (one seed, one rollout a task: Wilson); t: over seeds. "
        "steps: mean length of an episode; invalid: share of "
        "actions that the environment refused; format: share of completions without a defect; broke off: "
        "episodes a seed without an outcome, counted as not won.",
        bars=bars,
        scale=(0.0, min(1.0, math.ceil(10 * top) / 10) or 1.0),
    )


def _differences(data: Json, metric: str) -> Table:
    rows: list[list[str]] = []
    bars: list[Bar] = []
    for pair in data["differences"]:
        if pair["metric"] != metric:
            continue
        rows.append(
            [
                f"{pair['one']} − {pair['other']}",
                str(len(pair["seeds"])),
                signed(pair["mean"]),
                interval(pair["tasks"], sign=True),
                interval(pair["t"], sign=True),
                " ".join(signed(value) for value in pair["by_seed"].values()),
            ]
        )
        bars.append(bar(pair["mean"], pair["tasks"]))
    widest = max((abs(end) for bar in bars if bar for end in bar), default=1.0) or 1.0
    return Table(
        f"Paired differences, {metric}",
        ["difference", "seeds", "mean", f"95 % {basis(data)}", "95 % t", "each seed"],
        rows,
        "Positive: the first is better. Both conditions play the same tasks with the same random streams; "
        "the interval is of their difference by task. Nothing is corrected for the number of rows.",
        bars=bars,
        scale=(-widest, widest),
    )


def as_markdown(data: Json) -> str:
    """Every table, in the form the documentation uses."""
    parts = [f"{heading(data)}. repro-rl {data['version']}, revision {data['git'] or 'unknown'}."]
    parts += [f"- {note}" for note in [*headline(data), *data["notes"]]]
    parts += [markdown(table) for table in tables(data)]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def as_html(data: Json) -> str:
    """The page's text. It holds all it shows, runs no script and requests nothing."""
    words = {row["name"]: row["words"] for row in data["conditions"]}
    return fill(
        "pilot.html.jinja",
        agent=data["agent"],
        heading=heading(data),
        revision=data["git"] or "unknown",
        made=data["made"],
        headline=headline(data),
        notes=data["notes"],
        tables=[drawn(table) for table in tables(data)],
        prompts=[(name, words[name], text) for name, text in data["prompts"].items() if text],
        settings=yaml.safe_dump(data["config"], sort_keys=False, allow_unicode=True, width=110),
    )
