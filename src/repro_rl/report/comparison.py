"""The pages of a comparison: a self-contained HTML page, Markdown to paste, figures as SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repro_rl.errors import counted
from repro_rl.files import write_bytes
from repro_rl.report.comparison_tables import all_equal, ranked, tables
from repro_rl.report.lines import DASHES, PALETTE, Axes, Line, Ranked, Spread, band, leaves_out_zero
from repro_rl.report.load import Json
from repro_rl.report.plots import Figure, can_draw, draw
from repro_rl.report.template import dump_yaml, fill, write_pages
from repro_rl.report.text_table import drawn, interval_cell, join_markdown, markdown, number

TIME_AXES = {"env_steps": ("environment steps", 1.0), "seconds": ("minutes in iterations", 60.0)}
POINTS = 60
MOST_LINES = 8  # in the figure of all arms: more cannot be told apart


def write_comparison(data: Json, out: Path) -> list[Path]:
    """Write comparison.json, .md, .html and the figures as SVG and PNG; return the paths.

    comparison.svg holds the curves, where there are any; comparison-ranking.svg the arms by their result.
    """
    paths = write_pages(out / "comparison", data, as_markdown(data), as_html(data))
    figures = {"comparison": picture(data) if data["curves"] else {}, "comparison-ranking": ranking(data)}
    for name, files in figures.items():
        for kind, content in files.items():
            paths.append(out / f"{name}.{kind}")
            write_bytes(paths[-1], content)
    return paths


def heading(block: Json) -> str:
    """The panel, the checkpoint, the temperature and the number of rollouts."""
    text = f"{block['panel']}, checkpoint {block['name']}, temperature {block['temperature']}"
    rollouts = block["rollouts_per_task"]
    return f"{text}, {counted(rollouts, 'rollout')} a task"


def as_markdown(data: Json) -> str:
    """Every table, in the form the documentation uses."""
    parts = [
        f"Recipe {data['study']['recipe']}, repro-rl {data['version']}, revision {data['git'] or 'unknown'}."
    ]
    for block in data["evaluations"]:
        parts.append(f"## {heading(block)}")
        parts += [f"- {note}" for note in block["notes"]]
        parts += [markdown(table) for table in tables(block)]
    return join_markdown(parts)


def as_html(data: Json) -> str:
    """The page's text. It holds all it shows, runs no script and requests nothing."""
    blocks = [
        {"heading": heading(block), "notes": block["notes"], "tables": [drawn(t) for t in tables(block)]}
        for block in data["evaluations"]
    ]
    return fill(
        "comparison.html.jinja",
        recipe=str(data["study"]["recipe"]),
        revision=data["git"] or "unknown",
        made=data["made"],
        headline=headline(data),
        blocks=blocks,
        curves=[figure for axis in TIME_AXES if (figure := together(data, axis))],
        pairs=against_reference(data),
        study=dump_yaml(data["study"]),
        chosen=dump_yaml(data["chosen"]) if data["chosen"] else "",
    )


def headline(data: Json) -> list[str]:
    """One sentence for each reference: its success, and the arms that it is ahead of or behind."""
    block = data["evaluations"][0]
    lines = []
    for reference in dict.fromkeys(pair["reference"] for pair in block["differences"]):
        row = next(arm for arm in block["arms"] if arm["name"] == reference)
        pairs = [
            pair
            for pair in block["differences"]
            if pair["reference"] == reference and pair["metric"] == "success"
        ]
        better = [pair["other"] for pair in pairs if leaves_out_zero(pair["t"]) and pair["t"][0] > 0]
        worse = [pair["other"] for pair in pairs if leaves_out_zero(pair["t"]) and pair["t"][1] < 0]
        spread = row["success"]["t"]
        ends = "" if spread is None else f" {interval_cell(spread)}"
        mean = row["success"]["mean"]
        if pairs and all(map(all_equal, pairs)):
            level = "no arm won a task in any seed" if mean == 0 else "all arms are equal in every seed"
            lines.append(f"{reference}: success {number(mean)}; {level}, so there is no difference to test.")
            continue
        known = "unknown" if mean is None else f"{mean:.3f}"
        begin = f"{reference}: success {known}{ends} over {counted(len(row['seeds']), 'seed')}."
        if not any(pair["t"] for pair in pairs):
            lines.append(f"{begin} No difference has an interval, for which two seeds are needed.")
            continue
        lines.append(
            f"{begin} Of {counted(len(pairs), 'other arm')} it is ahead of {len(better)}{_listed(better)}, "
            f"behind {len(worse)}{_listed(worse)}. Elsewhere the difference's 95 % t-interval holds 0."
        )
    return lines


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


# Curves -------------------------------------------------------------------------------------------


def curves_over_seeds(data: Json, arm: str, axis: str) -> tuple[list[float], np.ndarray[Any, Any]]:
    """The arm's validations on a common grid: x [n], success [seeds, n]; empty without a common stretch.

    Between validations the curve is taken as straight; it is drawn where every seed has it.
    """
    unit = TIME_AXES[axis][1]
    curves = [c for c in data["curves"] if c["arm"] == arm and len(c[axis]) > 0]
    if not curves:
        return [], np.zeros((0, 0))
    first, last = max(c[axis][0] for c in curves), min(c[axis][-1] for c in curves)
    if last < first:
        return [], np.zeros((0, 0))
    grid = np.unique(np.linspace(first, last, POINTS))
    rows = np.array([np.interp(grid, c[axis], c["success"]) for c in curves])
    return (grid / unit).tolist(), rows


def trained(data: Json) -> list[str]:
    """Arms with a curve, in the order of the study."""
    arms = {curve["arm"] for curve in data["curves"]}
    return [item["name"] for item in data["study"]["methods"] if item["name"] in arms]


def shown_together(data: Json) -> list[str]:
    """Arms that one figure can hold: all, or where they are many the references and the best others."""
    names = trained(data)
    if len(names) <= MOST_LINES:
        return names
    block = ranked(data["evaluations"][0])
    references = {pair["reference"] for pair in block["differences"]}
    best = [arm["name"] for arm in block["arms"] if arm["name"] in names]
    kept = sorted(best, key=lambda name: name not in references)[:MOST_LINES]
    return [name for name in best if name in kept]


def together(data: Json, axis: str) -> Figure | None:
    """All arms in one figure, or the best of many; means only, as a dozen bands would hide each other."""
    lines = []
    shown, count = shown_together(data), len(trained(data))
    chosen = "" if len(shown) == count else f"The references and the best of {count} arms. "
    for index, name in enumerate(shown):
        x, rows = curves_over_seeds(data, name, axis)
        if len(x):
            color, dash = PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]
            lines.append(Line(name, x, rows.mean(0).tolist(), color, dash))
    return draw(
        f"Validation success by {TIME_AXES[axis][0]}",
        lines,
        Axes(TIME_AXES[axis][0], "success rate"),
        size=(5.2, 3.2),
        legend="always",
        note=f"{chosen}Mean over seeds, drawn where every seed has it; validation panel, not the test panel.",
    )


def against_reference(data: Json) -> list[Figure]:
    """Each arm beside the first reference, with bands over seeds."""
    names = trained(data)
    block = data["evaluations"][0]
    reference = next((pair["reference"] for pair in block["differences"]), None)
    if reference not in names:
        return []
    figures = []
    for name in names:
        if name == reference:
            continue
        lines = [
            band(label, *curves_over_seeds(data, label, "env_steps"), color, dash)
            for label, color, dash in ((reference, PALETTE[0], ""), (name, PALETTE[1], "6 3"))
        ]
        figure = draw(
            f"{reference} and {name}", lines, Axes("environment steps", "success rate"), legend="always"
        )
        if figure:
            figures.append(figure)
    return figures


def picture(data: Json) -> dict[str, bytes]:
    """The curves as one figure file, small multiples: every arm with its band over the reference's mean.

    Nothing without matplotlib.
    """
    if not can_draw():
        return {}
    from repro_rl.report.canvas import small_multiples

    names = trained(data)
    block = data["evaluations"][0]
    reference = next((pair["reference"] for pair in block["differences"]), names[0])
    lines = [band(name, *curves_over_seeds(data, name, "env_steps"), PALETTE[0]) for name in names]
    base = band(reference, *curves_over_seeds(data, reference, "env_steps"), PALETTE[0])
    return small_multiples(lines, base, f"mean and 95 % t-interval over seeds; dashed: mean of {reference}")


def ranking(data: Json) -> dict[str, bytes]:
    """The arms by their result, beside the first reference, as a figure file.

    Nothing without matplotlib, and where no arm has a result.
    """
    arms, reference = ranked_arms(data)
    if not can_draw() or not arms:
        return {}
    from repro_rl.report import canvas

    return canvas.ranking(arms, reference, data["evaluations"][0]["metrics"][0])


def ranked_arms(data: Json) -> tuple[list[Ranked], str]:
    """The arms of the first evaluation with a result, the best first; the first reference, "" for none."""
    block = ranked(data["evaluations"][0])
    metric = block["metrics"][0]
    pairs = [pair for pair in block["differences"] if pair["metric"] == metric]
    reference = next((str(pair["reference"]) for pair in data["evaluations"][0]["differences"]), "")
    minus = {pair["other"]: _spread(pair) for pair in pairs if pair["reference"] == reference}
    results = {arm["name"]: arm[metric] for arm in block["arms"] if (arm.get(metric) or {}).get("by_seed")}
    return [Ranked(name, _spread(found), minus.get(name)) for name, found in results.items()], reference


def _spread(found: Json) -> Spread:
    return Spread(found["mean"], found["t"], list(found["by_seed"].values()))
