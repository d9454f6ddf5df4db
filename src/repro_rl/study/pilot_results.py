"""The figures of a pilot study: conditions, and paired differences on the tasks that all played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro_rl.config import RunConfig
from repro_rl.demos.incontext import WHOLE
from repro_rl.errors import DataError
from repro_rl.rollout.record import episodes_file, read_trajectories
from repro_rl.run.evaluations import dtype_notes
from repro_rl.study.comparison import (
    compared_metrics,
    missing_note,
    paired_difference,
    paired_results,
    provenance,
    summary,
    task_differences,
    types_over_seeds,
)
from repro_rl.study.outcomes import Result, check_panel, read_result
from repro_rl.study.paired import crossed_bootstrap
from repro_rl.study.pilot import Condition
from repro_rl.study.stats import bootstrap_interval

RETRO = "retrospective"
COUNTS = ("length", "invalid_rate", "format_rate", "errors")


@dataclass(slots=True, frozen=True)
class PilotRuns:
    """Which evaluations a pilot study consists of."""

    out: Path  # holds seed<n>/eval/<condition>.json
    conditions: Sequence[Condition]  # in the order of the tables
    seeds: Sequence[int]

    def read(self) -> list[Result]:
        """Every evaluation that is there. Raises DataError when none is, or when their tasks differ."""
        results = [
            result
            for item in self.conditions
            for seed in self.seeds
            if (result := read_result(folder(self.out, seed), item.name, item.name, seed))
        ]
        if not results:
            raise DataError(
                f"No condition was played in {self.out}; repeat 'repro-rl pilot' with it as --out, or see "
                "why its evaluations failed."
            )
        for seed in self.seeds:
            check_panel([r for r in results if r.seed == seed])
        check_panel([replace(r, data={**r.data, "seed": None}) for r in results])
        return results


def pilot_data(
    runs: PilotRuns,
    config: RunConfig,
    *,
    agent: str,
    left_out: dict[str, str],
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything ``pilot.json`` holds. Intervals are 95 %. Raises DataError as ``PilotRuns.read`` does.

    ``left_out``: the reason for each condition that was not played; ``remarks``: added to the notes.
    """
    results, seeds = runs.read(), runs.seeds
    first = results[0].data
    metrics = compared_metrics(results)
    rows = [
        {
            **_row(item, [r for r in results if r.arm == item.name], seeds, metrics),
            "left_out": left_out.get(item.name),
        }
        for item in runs.conditions
    ]
    played = [row["name"] for row in rows if row["seeds"]]
    differences = [
        _difference(results, one, other, seeds, metric) for metric in metrics for one, other in pairs(played)
    ]
    return {
        **provenance(),
        "agent": agent,
        "seeds": list(seeds),
        **{key: first.get(key) for key in ("panel", "digest", "tasks", "rollouts_per_task", "temperature")},
        "shown": config.prompt.demonstrations,
        "annotator": config.demos.annotator,
        "metrics": metrics,
        "conditions": rows,
        "differences": [pair for pair in differences if pair is not None],
        "notes": [*_notes(rows, seeds), *dtype_notes(r.data for r in results), *remarks],
        "prompts": {
            row["name"]: first_prompt(runs.out, row["seeds"][0], row["name"]) for row in rows if row["seeds"]
        },
        "config": config.model_dump(mode="json", exclude={"api"}),
    }


def folder(out: Path, seed: int) -> Path:
    """The folder of one seed."""
    return out / f"seed{seed}"


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs (one, other) to subtract: everything minus base, then retrospective minus the others."""
    result = [(name, "base") for name in names if name != "base" and "base" in names]
    if RETRO in names:
        result += [(RETRO, name) for name in ("meta", "random", "plain") if name in names]
    return result


def spread(table: NDArray[np.float64]) -> list[float] | None:
    """95 % interval of the mean of a table [seeds, tasks]: bootstrap over both, of one seed over tasks.

    None for a table of equal values: resampling it would show a certainty that is not there.
    """
    if not np.ptp(table):
        return None
    mean = crossed_bootstrap(table) if len(table) > 1 else bootstrap_interval(table[0].tolist())
    return [mean.low, mean.high] if np.isfinite(mean.low) else None


def _row(
    item: Condition, own: Sequence[Result], seeds: Sequence[int], metrics: Sequence[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": item.name,
        "words": item.words,
        "seeds": [r.seed for r in own],
        "missing": [seed for seed in seeds if seed not in [r.seed for r in own]],
    }
    for metric in metrics:
        row[metric] = summary({r.seed: float(r.data[metric]) for r in own if metric in r.data})
        tasks = [r.tasks.get(metric) for r in own]
        table = [list(means.values()) for means in tasks if means]  # every seed plays the panel in its order
        row[metric]["tasks"] = spread(np.array(table)) if table else None
        if metric == "success" and len(own) == 1 and own[0].data.get("rollouts_per_task") == 1:
            ends = [own[0].data.get(end) for end in ("low", "high")]  # Wilson: right at 0 and 1 too
            row[metric]["tasks"] = row[metric]["tasks"] if None in ends else ends
    for name in COUNTS:
        values = [float(r.data[name]) for r in own if r.data.get(name) is not None]
        row[name] = sum(values) / len(values) if values else None
    fitted: Counter[str] = Counter()  # steps by how much of the demonstrations fitted into the prompt
    for result in own:
        fitted.update(result.data.get("demonstrations") or {})
    row["demonstrations"] = dict(fitted)
    row["by_type"] = types_over_seeds(own)
    return row


def _difference(
    results: Sequence[Result], one: str, other: str, seeds: Sequence[int], metric: str
) -> dict[str, Any] | None:
    both = paired_results(results, one, other, seeds, metric)
    if not both:
        return None
    table = task_differences(list(both.values()), metric)
    return {
        **paired_difference({"one": one, "other": other}, both, metric),
        "tasks": None if table is None else spread(table),
    }


def _notes(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """What limits the reading of the tables."""
    notes = [f"{row['name']}: {row['left_out']}." for row in rows if row.get("left_out")]
    for row in rows:
        if row["missing"] and row["seeds"]:
            notes.append(missing_note(row["name"], row["missing"]))
        total = sum(row["demonstrations"].values())
        short = {name: count for name, count in row["demonstrations"].items() if name != WHOLE}
        if short:
            listed = ", ".join(f"{name} at {100 * count / total:.1f} %" for name, count in short.items())
            notes.append(
                f"{row['name']}: not all demonstrations fitted whole into the prompt; of the steps: {listed}."
            )
        if row["errors"]:
            notes.append(
                f"{row['name']}: {row['errors']:.1f} episodes a seed broke off and count as not won."
            )
    if len(seeds) == 1:
        notes.append(
            "One seed: the intervals are over tasks and say nothing about another warm start or another "
            "choice of demonstrations."
        )
    elif len(seeds) < 6:
        notes.append(
            f"With {len(seeds)} seeds the bootstrap over seeds is coarse; look at the t-interval too."
        )
    return notes


def first_prompt(out: Path, seed: int, name: str) -> str:
    """The first prompt that a condition was played with; "" when none was recorded."""
    path = episodes_file(folder(out, seed), name)
    for record in read_trajectories(path) if path.exists() else ():
        if record["steps"]:
            return str(record["steps"][0]["prompt"])
    return ""
