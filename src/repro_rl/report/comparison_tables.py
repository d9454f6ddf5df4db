"""The tables of a comparison: the page, the Markdown file and the terminal print the same cells."""

from __future__ import annotations

import math

from repro_rl.report.load import Json
from repro_rl.report.metrics import COLUMNS
from repro_rl.report.text_table import Table, bar, interval_cell, make_table, number, series_title, signed
from repro_rl.study.numerals import DASH


def tables(block: Json) -> list[Table]:
    """All tables of one evaluation, in the order they are read; the best arm stands first in each."""
    references = list(dict.fromkeys(pair["reference"] for pair in block["differences"]))
    block = ranked(block)
    result = [results(block, metric) for metric in block["metrics"]]
    result += [differences(block, ref, metric) for metric in block["metrics"] for ref in references]
    result += [by_type(block), cost(block), progress(block, "retrospective"), progress(block, "online")]
    return [table for table in result if table.rows]


def ranked(block: Json) -> Json:
    """The block with its arms by the mean of its first metric, highest first; those without one stay last."""
    metric = block["metrics"][0]

    def lower(arm: Json) -> float:
        mean = (arm.get(metric) or {}).get("mean")
        return math.inf if mean is None else -mean

    arms = sorted(block["arms"], key=lower)
    rank = {arm["name"]: i for i, arm in enumerate(arms)}
    differences = sorted(block["differences"], key=lambda pair: rank[pair["other"]])
    return {**block, "arms": arms, "differences": differences}


def results(block: Json, metric: str) -> Table:
    """A row for each arm: the mean of ``metric`` with its intervals, and the value of every seed."""
    arms = [arm for arm in block["arms"] if (arm.get(metric) or {}).get("by_seed")]
    rows = []
    for arm in arms:
        cell = arm[metric]
        seeds = sorted({*arm["seeds"], *arm["missing"]})
        rows.append(
            [
                f"{arm['name']}{'' if arm['trained'] else ' (not trained)'}",
                str(len(cell["by_seed"])),
                number(cell["mean"]),
                *(interval_cell(cell[name]) for name in ("t", "bootstrap")),
                *(number(cell[name]) for name in ("iqm", "best", "worst")),
                " ".join(number(cell["by_seed"].get(str(seed))) for seed in seeds),
            ]
        )
    bars = [bar(arm[metric]["mean"], arm[metric]["t"]) for arm in arms]
    return make_table("results", rows, bars, metric=metric.capitalize())


def differences(block: Json, reference: str, metric: str) -> Table:
    """A row for each arm: ``reference`` minus it, with intervals, p values, and the value of every seed."""
    pairs = [p for p in block["differences"] if p["reference"] == reference and p["metric"] == metric]
    seeds = sorted({seed for pair in pairs for seed in pair["seeds"]})
    rows = [
        [
            f"{reference} − {pair['other']}",
            str(len(pair["seeds"])),
            signed(pair["mean"]),
            *(interval_cell(pair[name], sign=True) for name in ("t", "crossed")),
            *(number(None if all_equal(pair) else pair[name]) for name in ("p", "p_holm")),
            " ".join(signed(pair["by_seed"].get(str(seed))) for seed in seeds),
        ]
        for pair in pairs
    ]
    bars = [bar(pair["mean"], pair["t"] or pair["crossed"]) for pair in pairs]
    smallest = min((pair["p_smallest"] for pair in pairs), default=1.0)
    return make_table("differences", rows, bars, reference=reference, metric=metric, smallest=smallest)


def all_equal(pair: Json) -> bool:
    """Whether two arms are equal in every seed, so that there is nothing to test."""
    return bool(pair["by_seed"]) and not any(pair["by_seed"].values())


def by_type(block: Json, row: str = "arm") -> Table:
    """Success per task type, a row for each arm. ``row``: what a row stands for, as the table names it."""
    kinds = sorted({kind for arm in block["arms"] for kind in arm["by_type"]})
    arms = [arm for arm in block["arms"] if arm["by_type"]]
    counts = {
        kind: next((arm["by_type"][kind]["episodes"] for arm in arms if kind in arm["by_type"]), None)
        for kind in kinds
    }
    columns = [kind if counts[kind] is None else f"{kind} ({counts[kind]})" for kind in kinds]
    rows = [
        [arm["name"], *(number((arm["by_type"].get(kind) or {}).get("mean")) for kind in kinds)]
        for arm in arms
    ]
    return make_table("by_type", rows, columns=columns, row=row)


def cost(block: Json) -> Table:
    """A row for each arm: environment steps, iterations, minutes, length of episodes, invalid actions."""

    def mean(value: Json | None, unit: int, form: str) -> str:
        return DASH if value is None else format(value["mean"] / unit, form)

    def minutes(value: Json | None) -> str:
        if value is None:
            return DASH
        return f"{value['mean'] / 60:.1f} ({value['low'] / 60:.1f} – {value['high'] / 60:.1f})"

    rows = [
        [
            arm["name"],
            mean(arm["env_steps"], 1000, ",.0f"),
            mean(arm["iterations"], 1, ".0f"),
            minutes(arm["seconds"]),
            number(arm["length"], 1),
            number(arm["invalid_rate"]),
        ]
        for arm in block["arms"]
        if arm["seeds"]
    ]
    return make_table("cost", rows)


def progress(block: Json, which: str) -> Table:
    """Progress quality of each arm that has any. ``which``: "online" or "retrospective"."""
    rows = [
        [arm["name"], *(number(values[key], digits) for key, (_, digits) in COLUMNS.items())]
        for arm in block["arms"]
        if (values := arm["progress"][which]).get("covered")
    ]
    columns = [label for label, _ in COLUMNS.values()]
    return make_table("progress", rows, columns=columns, series=series_title(which))
