"""Which figures the report shows, drawn from the runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repro_rl.errors import counted
from repro_rl.files import finite
from repro_rl.report.lines import DASHES, LOST, PALETTE, WON, Axes, Line, band
from repro_rl.report.load import Conditions, Json, Run
from repro_rl.report.metrics import ELSEWHERE, HEALTH, OTHER, REWARD, Metric
from repro_rl.report.plots import Figure, draw
from repro_rl.report.text_table import series_title
from repro_rl.study.series import Which, by_fraction
from repro_rl.study.stats import wilson

MAX_OTHER = 24  # unknown metrics drawn; the rest are named


class Style:
    """Colour and dash of each run: one colour a method, one dash a seed; both repeat when they run out."""

    def __init__(self, runs: Sequence[Run]) -> None:
        methods = list(dict.fromkeys(run.method for run in runs))
        self.color = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(methods)}
        count: dict[str, int] = {}
        self.dash: dict[str, str] = {}
        for run in runs:
            index = count.get(run.method, 0)
            count[run.method] = index + 1
            self.dash[run.label] = DASHES[index % len(DASHES)]

    def line(self, run: Run, key: str, x: str = "iteration", *, bars: bool = False) -> Line:
        xs, ys = run.series(key, x)
        return Line(run.label, xs, ys, self.color[run.method], self.dash[run.label], bars=bars)


def curves(runs: Sequence[Run]) -> tuple[list[Figure], list[str]]:
    """Training and validation success against iterations and environment steps; and what is missing."""
    style = Style(runs)
    figures: list[Figure] = []
    notes: list[str] = []
    shares = "Share of this iteration's rollouts that won; training tasks and temperature."
    for x, name in (("iteration", "iteration"), ("env_steps", "environment steps")):
        training = [style.line(run, "rollout/success", x) for run in runs]
        validation = [_evaluation(style, run, x) for run in runs]
        for what, lines, note in (
            ("Training", training, shares),
            ("Validation", validation, "Evaluations during training, with 95 % intervals."),
        ):
            title = f"{what} success by {name}"
            figure = draw(title, lines, Axes(name, "success rate", (0, 1)), size=(4.6, 2.9), note=note)
            if figure is None:
                notes.append(f"{title}: not recorded.")
            else:
                figures.append(figure)
    mean = draw(
        "Training success, mean over seeds",
        _over_seeds(runs, style),
        Axes("iteration", "success rate", (0, 1)),
        size=(4.6, 2.9),
        note="Runs that differ in the seed alone, iterations that all have; 95 % t interval from 3 seeds on.",
        legend="always",
    )
    if mean:
        figures.append(mean)
    return figures, notes


def small_multiples(runs: Sequence[Run], metrics: dict[str, Metric]) -> tuple[list[Figure], list[str]]:
    """One figure per metric, and a note that names the ones nobody recorded."""
    style, figures, missing = Style(runs), [], []
    for key, metric in metrics.items():
        figure = draw(
            metric.title,
            [style.line(run, key) for run in runs],
            Axes("iteration", metric.unit, (0, metric.top) if metric.top else None),
            note=metric.meaning,
        )
        if figure is None:
            missing.append(f"{metric.title} ({key})")
        else:
            figures.append(figure)
    return figures, [f"Not recorded: {', '.join(missing)}."] if missing else []


def rewards(runs: Sequence[Run]) -> tuple[list[Figure], list[str]]:
    """One figure for each reward term, unknown ones too; of a single run also all terms together, first."""
    terms = dict(REWARD)
    for key in _keys(runs):
        if key.startswith("reward/") and key not in terms:
            terms[key] = Metric(key.removeprefix("reward/"), "reward per episode", "")
    figures, notes = small_multiples(runs, terms)
    if len(runs) == 1:
        lines = []
        for index, (key, metric) in enumerate(terms.items()):
            xs, ys = runs[0].series(key)
            dash = DASHES[index % len(DASHES)] if index else ""
            lines.append(Line(metric.title, xs, ys, PALETTE[index % len(PALETTE)], dash))
        note = "On one scale, to see which term is largest."
        together = draw("All terms", lines, Axes("iteration", "reward per episode"), note=note)
        if together and len(together.legend) > 1:
            figures.insert(0, together)
    return figures, notes


def health(runs: Sequence[Run]) -> tuple[list[Figure], list[str]]:
    """The metrics that show whether training is sound, one figure each, and notes on them."""
    return small_multiples(runs, HEALTH)


def others(runs: Sequence[Run]) -> tuple[list[Figure], list[str]]:
    """The metrics in the folded part of the page; those without an explanation last."""
    names = [
        key
        for key in _keys(runs)
        if key not in ELSEWHERE and key not in HEALTH and not key.startswith("reward/")
    ]
    names.sort(key=lambda key: key not in OTHER)
    metrics = {key: OTHER.get(key, Metric(key, "value", "")) for key in names[:MAX_OTHER]}
    figures, _ = small_multiples(runs, metrics)
    rest = names[MAX_OTHER:]
    return figures, [f"Recorded but not drawn: {', '.join(rest)}."] if rest else []


def progress_curves(records: Sequence[Json], when: str) -> list[Figure]:
    """Mean progress of successes and failures against the fraction of the episode; one figure a series."""
    figures = []
    grid = np.linspace(0, 1, 11)
    series: tuple[Which, ...] = ("online", "retrospective", "truth")
    for which in series:
        lines = []
        for won in (True, False):
            rows = by_fraction(records, which, won=won)
            name = f"{'successes' if won else 'failures'} ({len(rows)})"
            color, dash = (WON, "") if won else (LOST, DASHES[1])
            lines.append(band(name, (100 * grid).tolist(), 100 * rows, color, dash))
        figure = draw(
            f"{series_title(which)}, {when}",
            lines,
            Axes("part of the episode, %", "progress, %", (0, 100)),
            legend="always",
        )
        if figure:
            figures.append(figure)
    return figures


def _evaluation(style: Style, run: Run, x: str) -> Line:
    line = style.line(run, "validation/success", x, bars=True)
    rows = [row for row in run.metrics if finite(row.get("validation/success")) and finite(row.get(x))]
    if rows and all(finite(row.get("validation/low")) and finite(row.get("validation/high")) for row in rows):
        line.low = [row["validation/low"] for row in rows]
        line.high = [row["validation/high"] for row in rows]
    elif rows and all(
        finite(row.get("validation/tasks")) and 0 <= row["validation/success"] <= 1 for row in rows
    ):
        spans = [
            wilson(round(row["validation/success"] * n), n)
            for row in rows
            for n in [int(row["validation/tasks"])]
        ]
        line.low, line.high = [low for low, _ in spans], [high for _, high in spans]
    return line


def _over_seeds(runs: Sequence[Run], style: Style) -> list[Line]:
    """The mean of every arm with two seeds or more: runs that differ in the seed alone."""
    arms: dict[tuple[str, Conditions], dict[str, dict[float, float]]] = {}
    repeated = set()
    for run in runs:
        x, y = run.series("rollout/success")
        if x:
            seeds = arms.setdefault((run.method, run.conditions), {})
            if run.seed in seeds:
                repeated.add((run.method, run.conditions))
            seeds[run.seed] = dict(zip(x, y, strict=True))
    lines = []
    for arm, seeds in arms.items():
        if len(seeds) > 1 and arm not in repeated:
            series, method = list(seeds.values()), arm[0]
            shared = sorted(set.intersection(*(set(points) for points in series)))
            rows = np.array([[points[x] for x in shared] for points in series])
            dash = DASHES[[key for key in arms if key[0] == method].index(arm) % len(DASHES)]
            name = f"{method} ({counted(len(series), 'seed')})"
            lines.append(band(name, shared, rows, style.color[method], dash))
    return lines


def _keys(runs: Sequence[Run]) -> list[str]:
    keys = {key for run in runs for row in run.metrics for key, value in row.items() if finite(value)}
    return sorted(keys)
