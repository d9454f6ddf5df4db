"""The tables of a comparison, once: the page, the Markdown file and the terminal print the same cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
DASH = "–"


@dataclass(slots=True)
class Table:
    """A table of text. ``bars``: per row an interval (low, mean, high) to draw, on ``scale``."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""
    bars: list[tuple[float, float, float] | None] = field(default_factory=list)
    words: bool = True  # the last column is text, not a number
    scale: tuple[float, float] = (0.0, 1.0)


def number(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", "−")


def interval(ends: Sequence[float] | None, sign: bool = False) -> str:
    write = signed if sign else number
    return DASH if ends is None else f"[{write(ends[0])}, {write(ends[1])}]"


def tables(block: Json) -> list[Table]:
    """All tables of one evaluation, in the order they are read."""
    found = [results(block, metric) for metric in block["metrics"]]
    references = list(dict.fromkeys(pair["reference"] for pair in block["differences"]))
    found += [differences(block, ref, metric) for metric in block["metrics"] for ref in references]
    found += [by_type(block), cost(block), progress(block, "retrospective"), progress(block, "online")]
    return [table for table in found if table.rows]


def results(block: Json, metric: str) -> Table:
    arms = [arm for arm in block["arms"] if (arm.get(metric) or {}).get("by_seed")]
    rows, bars = [], []
    for arm in arms:
        cell = arm[metric]
        each = " ".join(number(cell["by_seed"].get(str(seed))) for seed in _all_seeds(arm))
        rows.append(
            [
                f"{arm['name']}{'' if arm['trained'] else ' (not trained)'}",
                str(len(cell["by_seed"])),
                number(cell["mean"]),
                interval(cell["t"]),
                interval(cell["bootstrap"]),
                number(cell["iqm"]),
                number(cell["best"]),
                number(cell["worst"]),
                each,
            ]
        )
        bars.append(bar(cell["mean"], cell["t"]))
    top = max((bar[2] for bar in bars if bar), default=1.0)
    return Table(
        f"{metric.capitalize()} on the held-out panel",
        ["arm", "seeds", "mean", "95 % t", "95 % bootstrap", "IQM", "best", "worst", "each seed"],
        rows,
        "Intervals are over seeds. IQM: mean of the middle half of the seeds, by weight.",
        bars=bars,
        scale=(0.0, min(1.0, math.ceil(10 * top) / 10) or 1.0),
    )


def differences(block: Json, reference: str, metric: str) -> Table:
    rows, bars = [], []
    pairs = [p for p in block["differences"] if p["reference"] == reference and p["metric"] == metric]
    seeds = sorted({seed for pair in pairs for seed in pair["seeds"]})
    for pair in pairs:
        rows.append(
            [
                f"{reference} − {pair['other']}",
                str(len(pair["seeds"])),
                signed(pair["mean"]),
                interval(pair["t"], sign=True),
                interval(pair["crossed"], sign=True),
                number(pair["p"]),
                number(pair["p_holm"]),
                " ".join(signed(pair["by_seed"].get(str(seed))) for seed in seeds),
            ]
        )
        bars.append(bar(pair["mean"], pair["t"] or pair["crossed"]))
    ends = [abs(end) for bar in bars if bar for end in bar]
    widest = max(ends, default=1.0) or 1.0
    return Table(
        f"{reference} against each arm, {metric}, paired",
        ["difference", "seeds", "mean", "95 % t", "95 % seeds × tasks", "p", "p (Holm)", "each seed"],
        rows,
        "Positive: the first is better. t: over the seeds both have. Seeds × tasks: bootstrap over both, as "
        "all arms play the same tasks. p: exact sign-flip test over seeds, two-sided; its smallest possible "
        f"value here is {min((p['p_smallest'] for p in pairs), default=1.0):.3g}. Holm: corrected for the "
        "trained arms of this table.",
        bars=bars,
        scale=(-widest, widest),
    )


def by_type(block: Json) -> Table:
    kinds = sorted({kind for arm in block["arms"] for kind in arm["by_type"]})
    arms = [arm for arm in block["arms"] if arm["by_type"]]
    counts = {
        kind: next((arm["by_type"][kind]["episodes"] for arm in arms if kind in arm["by_type"]), None)
        for kind in kinds
    }
    head = [kind if counts[kind] is None else f"{kind} ({counts[kind]})" for kind in kinds]
    rows = [
        [arm["name"], *(number((arm["by_type"].get(kind) or {}).get("mean")) for kind in kinds)]
        for arm in arms
    ]
    return Table(
        "Success by task type, mean over seeds",
        ["arm", *head],
        rows,
        "In brackets: episodes of the type in one run's evaluation.",
        words=False,
    )


def cost(block: Json) -> Table:
    def thousands(value: Json | None) -> str:
        return DASH if value is None else f"{value['mean'] / 1000:,.0f}"

    def minutes(value: Json | None) -> str:
        if value is None:
            return DASH
        return f"{value['mean'] / 60:.1f} ({value['low'] / 60:.1f} – {value['high'] / 60:.1f})"

    def count(value: Json | None) -> str:
        return DASH if value is None else f"{value['mean']:.0f}"

    rows = [
        [
            arm["name"],
            thousands(arm["env_steps"]),
            count(arm["iterations"]),
            minutes(arm["seconds"]),
            number(arm["length"], 1),
            number(arm["invalid_rate"]),
        ]
        for arm in block["arms"]
        if arm["seeds"]
    ]
    return Table(
        "Cost of a run, and behaviour on the panel",
        ["arm", "env steps, thousands", "iterations", "minutes (range)", "steps an episode", "invalid"],
        rows,
        "Means over seeds. Minutes are spent in iterations, with as many runs beside it as the study ran at "
        "once; warmup, validations and evaluations are not in them.",
        words=False,
    )


PROGRESS = {
    "covered": ("coverage", 2),
    "discrimination": ("discrimination", 1),
    "truth_discrimination": ("truth's", 1),
    "monotonicity": ("monotone", 2),
    "mae": ("error", 1),
    "spearman_success": ("ρ won", 2),
    "spearman_failure": ("ρ lost", 2),
    "gain_spearman_success": ("gains won", 2),
    "gain_spearman_failure": ("gains lost", 2),
    "final_failure": ("last value, lost", 0),
}


def progress(block: Json, which: str) -> Table:
    rows = []
    for arm in block["arms"]:
        values = arm["progress"][which]
        if values.get("covered"):
            rows.append(
                [arm["name"], *(number(values[key], digits) for key, (_, digits) in PROGRESS.items())]
            )
    return Table(
        f"{which.capitalize()} progress against the truth, mean over seeds",
        ["arm", *(label for label, _ in PROGRESS.values())],
        rows,
        "Points are 0..100; what each column means: docs/metrics.md, progress quality. Where coverage is low "
        "the rest of the row rests on a selection.",
        words=False,
    )


def markdown(table: Table) -> str:
    """A table as Markdown; what would end a cell or begin markup is escaped."""
    rows = ["| " + " | ".join(map(_cell, row)) + " |" for row in (table.head, *table.rows)]
    lines = [rows[0], "|" + "---|" * len(table.head), *rows[1:]]
    return f"### {_cell(table.title)}\n\n" + "\n".join(lines) + (f"\n\n{table.note}" if table.note else "")


def _cell(text: str) -> str:
    for char in "\\|`<>*_[]":
        if char in "[]" or (char == "_" and "__" not in text):
            continue  # intervals, and names with one underscore, read better as they are
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


def _all_seeds(arm: Json) -> list[int]:
    return sorted({*arm["seeds"], *arm["missing"]})


def bar(mean: float | None, ends: Sequence[float] | None) -> tuple[float, float, float] | None:
    if mean is None:
        return None
    return (mean, mean, mean) if ends is None else (ends[0], mean, ends[1])
