"""The figures of a pilot study: conditions, and paired differences on the tasks that all played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import repro_rl
from repro_rl.config import RunConfig
from repro_rl.demos.incontext import WHOLE
from repro_rl.errors import DataError
from repro_rl.rollout.record import read_trajectories
from repro_rl.study.comparison import GRADED, summary, task_differences, types_over_seeds
from repro_rl.study.outcomes import Result, check_panel, read_result
from repro_rl.study.paired import crossed_bootstrap
from repro_rl.study.pilot import Condition
from repro_rl.study.stats import bootstrap_interval
from repro_rl.train.run_folder import git_revision

RETRO = "retrospective"
COUNTS = ("length", "invalid_rate", "format_rate", "errors")


def pilot_data(
    out: Path,
    config: RunConfig,
    conditions: Sequence[Condition],
    seeds: Sequence[int],
    *,
    agent: str,
    left_out: dict[str, str],
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything ``pilot.json`` holds, from the evaluations in ``out/seed<n>/eval``. Intervals are 95 %.

    Raises DataError when nothing was played, or when evaluations do not rest on the same tasks.
    """
    results = [
        result
        for item in conditions
        for seed in seeds
        if (result := read_result(folder(out, seed), item.name, item.name, seed))
    ]
    if not results:
        raise DataError(f"No condition was played in {out}.")
    for seed in seeds:
        check_panel([r for r in results if r.seed == seed])
    check_panel([replace(r, data={**r.data, "seed": None}) for r in results])
    first = results[0].data
    graded = any(abs(r.data["score"] - r.data["success"]) > GRADED for r in results)
    metrics = ["success", "score"] if graded else ["success"]
    rows = [_row(item, [r for r in results if r.arm == item.name], seeds, metrics) for item in conditions]
    for row in rows:
        row["left_out"] = left_out.get(row["name"])
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": repro_rl.__version__,
        "git": git_revision(),
        "agent": agent,
        "seeds": list(seeds),
        "panel": first["panel"],
        "digest": first["digest"],
        "tasks": first["tasks"],
        "rollouts_per_task": first["rollouts_per_task"],
        "temperature": first["temperature"],
        "shown": config.prompt.demonstrations,
        "annotator": config.demos.annotator,
        "metrics": metrics,
        "conditions": rows,
        "differences": [
            pair
            for metric in metrics
            for one, other in pairs([row["name"] for row in rows if row["seeds"]])
            if (pair := _difference(results, one, other, seeds, metric)) is not None
        ],
        "notes": [*_notes(rows, seeds), *remarks],
        "prompts": {
            row["name"]: first_prompt(out, row["seeds"][0], row["name"]) for row in rows if row["seeds"]
        },
        "config": config.model_dump(mode="json", exclude={"api"}),
    }


def folder(out: Path, seed: int) -> Path:
    """Where one seed's evaluations lie."""
    return out / f"seed{seed}"


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """What is subtracted: everything from base's point of view, then retrospective minus the others."""
    found = [(name, "base") for name in names if name != "base" and "base" in names]
    if RETRO in names:
        found += [(RETRO, name) for name in ("meta", "random", "plain") if name in names]
    return found


def spread(table: NDArray[np.float64]) -> list[float] | None:
    """95 % interval of the mean of a table [seeds, tasks]: bootstrap over both, of one seed over tasks.

    None for a table of equal values: resampling it would show a certainty that is not there.
    """
    if not np.ptp(table):
        return None
    found = crossed_bootstrap(table) if len(table) > 1 else bootstrap_interval(table[0].tolist())
    return [found.low, found.high] if np.isfinite(found.low) else None


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
        row[metric] = summary({r.seed: float(r.data[metric]) for r in own})
        tasks = [r.tasks.get(metric) for r in own]
        table = [list(found.values()) for found in tasks if found]  # every seed plays the panel in its order
        row[metric]["tasks"] = spread(np.array(table)) if table else None
        if metric == "success" and len(own) == 1 and own[0].data["rollouts_per_task"] == 1:
            row[metric]["tasks"] = [own[0].data["low"], own[0].data["high"]]  # Wilson: right at 0 and 1 too
    for name in COUNTS:
        known = [float(r.data[name]) for r in own if r.data.get(name) is not None]
        row[name] = sum(known) / len(known) if known else None
    shown: Counter[str] = Counter()
    for result in own:
        shown.update(result.data.get("demonstrations") or {})
    row["demonstrations"] = dict(shown)
    row["by_type"] = types_over_seeds(own)
    return row


def _difference(
    results: Sequence[Result], one: str, other: str, seeds: Sequence[int], metric: str
) -> dict[str, Any] | None:
    found = {(r.arm, r.seed): r for r in results}
    both = {s: (found[one, s], found[other, s]) for s in seeds if (one, s) in found and (other, s) in found}
    if not both:
        return None
    by_seed = {seed: float(a.data[metric]) - float(b.data[metric]) for seed, (a, b) in both.items()}
    table = task_differences(list(both.values()), metric)
    total = summary(by_seed)
    return {
        "metric": metric,
        "one": one,
        "other": other,
        "seeds": list(both),
        "by_seed": total["by_seed"],
        "mean": total["mean"],
        "t": total["t"],
        "tasks": None if table is None else spread(table),
    }


def _notes(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """What a reader must know before believing the tables."""
    notes = [f"{row['name']}: {row['left_out']}." for row in rows if row.get("left_out")]
    for row in rows:
        if row["missing"] and row["seeds"]:
            listed = ", ".join(map(str, row["missing"]))
            notes.append(f"{row['name']}: no result for seed {listed}; its mean rests on the others.")
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
    path = folder(out, seed) / "trajectories" / f"eval-{name}.jsonl.gz"
    for record in read_trajectories(path) if path.exists() else ():
        if record["steps"]:
            return str(record["steps"][0]["prompt"])
    return ""
