"""The figures of a study, from its run folders: per arm over seeds, and arm against arm by seed and by task.

Everything here is data for ``comparison.json``; nan is None there. Intervals are 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import repro_rl
from repro_rl.errors import DataError
from repro_rl.rollout.record import or_null
from repro_rl.run.evaluations import dtype_notes
from repro_rl.run.folder import git_revision
from repro_rl.study.definition import Arm, Study
from repro_rl.study.jobs import evaluation_names
from repro_rl.study.outcomes import Curve, Result, check_panel, read_curve, read_result, type_results
from repro_rl.study.paired import crossed_bootstrap, holm, interquartile_mean, sign_flip_p, smallest_p
from repro_rl.study.stats import Interval, bootstrap_interval, mean_interval

QUALITY = (
    *("covered", "discrimination", "truth_discrimination", "leakage", "monotonicity", "mae"),
    *("spearman_success", "spearman_failure", "gain_spearman_success", "gain_spearman_failure"),
    *("epic", "final_success", "final_failure"),
)
GRADED = 1e-6  # a score that differs from success by more is a second metric


def comparison_data(
    study: Study, out: Path, chosen: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """All tables and curves of the runs in ``out/runs``; what is missing is named, not guessed.

    Raises DataError when no run has been evaluated, or when two were evaluated on different tasks.
    """
    curves = [
        read_curve(out / "runs" / item.name / f"seed{seed}", item.name, seed)
        for item in study.methods
        if item.train
        for seed in study.seeds
    ]
    blocks = []
    for name in evaluation_names(study.evaluation):
        results = [
            result
            for item in study.methods
            for seed in study.seeds
            if (result := read_result(out / "runs" / item.name / f"seed{seed}", name, item.name, seed))
        ]
        if results:
            check_panel(results)
            blocks.append(_block(study, name, results, curves))
    if not blocks:
        raise DataError(f"No evaluated run in {out / 'runs'}; run the study first.")
    return {
        **provenance(),
        "study": study.model_dump(mode="json"),
        "chosen": chosen or {},
        "evaluations": blocks,
        "curves": [
            {
                "arm": curve.arm,
                "seed": curve.seed,
                "env_steps": curve.env_steps,
                "seconds": curve.seconds,
                "success": curve.success,
            }
            for curve in curves
            if curve.success
        ],
    }


def provenance() -> dict[str, Any]:
    """When, and by which version of the code, figures were computed."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": repro_rl.__version__,
        "git": git_revision(),
    }


def compared_metrics(results: Sequence[Result]) -> list[str]:
    """Success, and the score where it says something else."""
    graded = any(abs(r.data["score"] - r.data["success"]) > GRADED for r in results if "score" in r.data)
    return ["success", "score"] if graded else ["success"]


def paired_results(
    results: Sequence[Result], one: str, other: str, seeds: Sequence[int], metric: str
) -> dict[int, tuple[Result, Result]]:
    """Both results of every seed that has both, with the metric: older results have no score."""
    by_run = {(r.arm, r.seed): r for r in results if metric in r.data}
    return {
        s: (by_run[one, s], by_run[other, s]) for s in seeds if (one, s) in by_run and (other, s) in by_run
    }


def missing_note(name: str, seeds: Sequence[int]) -> str:
    """A sentence on the seeds of an arm that have no result."""
    listed = ", ".join(map(str, seeds))
    return f"{name}: no result for seed {listed}; its mean rests on the others."


def _block(study: Study, name: str, results: list[Result], curves: list[Curve]) -> dict[str, Any]:
    first = results[0].data
    metrics = compared_metrics(results)
    arms = [_arm(study, item, results, curves, metrics) for item in study.methods]
    arms = [row for row in arms if row["seeds"] or row["missing"]]
    pairs = [
        pair
        for metric in metrics
        for reference in study.compared_with()
        for pair in _family(reference, study, results, metric)
    ]
    return {
        "name": name,
        "panel": first.get("panel"),
        "digest": first.get("digest"),
        "tasks": first.get("tasks"),
        "rollouts_per_task": first.get("rollouts_per_task"),
        "max_steps": first.get("max_steps"),
        "temperature": first.get("temperature"),
        "metrics": metrics,
        "arms": arms,
        "differences": pairs,
        "notes": [*_notes(arms, study), *dtype_notes(result.data for result in results)],
    }


def _arm(
    study: Study, item: Arm, results: Sequence[Result], curves: Sequence[Curve], metrics: Sequence[str]
) -> dict[str, Any]:
    own = [result for result in results if result.arm == item.name]
    seeds = [result.seed for result in own]
    own_curves = [curve for curve in curves if curve.arm == item.name and curve.seed in seeds]
    row: dict[str, Any] = {
        "name": item.name,
        "method": item.method,
        "trained": item.train,
        "seeds": seeds,
        "missing": [seed for seed in study.seeds if seed not in seeds],
    }
    for metric in metrics:
        row[metric] = summary({r.seed: float(r.data[metric]) for r in own if metric in r.data})
    row["length"] = _mean([r.data.get("length") for r in own])
    row["invalid_rate"] = _mean([r.data.get("invalid_rate") for r in own])
    row["env_steps"] = _spread([curve.total_steps for curve in own_curves])
    row["seconds"] = _spread([curve.total_seconds for curve in own_curves])
    row["iterations"] = _spread([float(curve.iterations) for curve in own_curves])
    row["progress"] = {
        which: {
            key: _mean([(r.data.get("progress") or {}).get(which, {}).get(key) for r in own])
            for key in QUALITY
        }
        for which in ("online", "retrospective")
    }
    row["by_type"] = types_over_seeds(own)
    return row


def types_over_seeds(own: Sequence[Result]) -> dict[str, Any]:
    """Of each task type: the summary of its success over the seeds, and its episodes in one evaluation."""
    typed = [type_results(r.data) for r in own]
    return {
        kind: {
            **summary({r.seed: types[kind][0] for r, types in zip(own, typed, strict=True) if kind in types}),
            "episodes": next((types[kind][1] for types in typed if kind in types), None),
        }
        for kind in sorted({kind for types in typed for kind in types})
    }


def summary(by_seed: dict[int, float]) -> dict[str, Any]:
    """Mean, interquartile mean, extremes, and two intervals over the seeds of one arm."""
    values = list(by_seed.values())
    spread = mean_interval(values)
    resampled = bootstrap_interval(values)
    return {
        "by_seed": {str(seed): value for seed, value in by_seed.items()},
        "mean": or_null(spread.mean),
        "iqm": or_null(interquartile_mean(values)),
        "best": max(values, default=None),
        "worst": min(values, default=None),
        "t": _ends(spread),
        "bootstrap": _ends(resampled),
    }


def _family(reference: str, study: Study, results: Sequence[Result], metric: str) -> list[dict[str, Any]]:
    """The reference minus every other arm; Holm's correction is over those that train."""
    pairs = []
    for item in study.methods:
        both = paired_results(results, reference, item.name, study.seeds, metric)
        if both and item.name != reference:
            pairs.append(_difference(reference, item.name, both, metric))
    trained = {item.name for item in study.methods if item.train}
    tested = [pair for pair in pairs if pair["p"] is not None and pair["other"] in trained]
    for pair, adjusted in zip(tested, holm([pair["p"] for pair in tested]), strict=True):
        pair["p_holm"] = adjusted
    return pairs


def _difference(
    reference: str, other: str, both: dict[int, tuple[Result, Result]], metric: str
) -> dict[str, Any]:
    row = paired_difference({"reference": reference, "other": other}, both, metric)
    values = list(row["by_seed"].values())
    table = task_differences(list(both.values()), metric)
    tasks = None if table is None else crossed_bootstrap(table)
    return {
        **row,
        "p": sign_flip_p(values) if len(values) > 1 else None,
        "p_smallest": smallest_p(len(values)),
        "p_holm": None,
        "tasks": None if table is None else int(table.shape[1]),
        "crossed": None if tasks is None else _ends(tasks),
    }


def paired_difference(
    names: dict[str, str], both: dict[int, tuple[Result, Result]], metric: str
) -> dict[str, Any]:
    """What every row on a difference holds: the first of two arms or conditions minus the second, by seed.

    ``names``: of the two, by their fields. ``both``: their results, by seed.
    """
    by_seed = {str(seed): float(a.data[metric]) - float(b.data[metric]) for seed, (a, b) in both.items()}
    spread = mean_interval(list(by_seed.values()))
    return {
        "metric": metric,
        **names,
        "seeds": list(both),
        "by_seed": by_seed,
        "mean": or_null(spread.mean),
        "t": _ends(spread),
    }


def task_differences(both: Sequence[tuple[Result, Result]], metric: str) -> np.ndarray[Any, Any] | None:
    """[seeds, tasks] differences on the tasks that all played; None without recorded episodes."""
    tables = [(a.tasks.get(metric), b.tasks.get(metric)) for a, b in both]
    if not tables or not all(a and b for a, b in tables):
        return None
    scored = [(a or {}, b or {}) for a, b in tables]
    shared = [task for task in scored[0][0] if all(task in a and task in b for a, b in scored)]
    if not shared:
        return None
    return np.array([[a[task] - b[task] for task in shared] for a, b in scored], dtype=np.float64)


def _notes(arms: Sequence[dict[str, Any]], study: Study) -> list[str]:
    """What limits the reading of the table."""
    notes = [missing_note(row["name"], row["missing"]) for row in arms if row["missing"]]
    if budgets := _budget_note([row["env_steps"] for row in arms if row["env_steps"]], study.env_steps):
        notes.append(budgets)
    ends = [end for row in arms for end in row["success"]["t"] or ()]
    if ends and (min(ends) < 0 or max(ends) > 1):
        notes.append(
            "A t-interval of a success rate goes below 0 or above 1, which no rate does: with so few seeds "
            "it says only that the rate is not known well."
        )
    seeds = max((len(row["seeds"]) for row in arms), default=0)
    if seeds == 1:
        notes.append(
            "One seed gives no interval over seeds and no p-value: another seed may turn the order round. "
            "Give the study more, such as 'repro-rl compare -o FOLDER --seeds 0-4'; finished runs are kept."
        )
    elif seeds < 6:
        floor = smallest_p(seeds)
        notes.append(
            f"With {seeds} seeds the sign-flip test cannot give a p-value below {floor:.3g}, and the "
            f"bootstrap over seeds has only {math.comb(2 * seeds - 1, seeds) if seeds else 0} distinct "
            "resamples: it is too narrow, trust the t-interval."
        )
    if study.sweep is None and len(arms) > 1:
        notes.append("Nothing was swept: the recipe's settings may suit some methods better.")
    return notes


def _budget_note(spent: Sequence[dict[str, float]], env_steps: int | None) -> str | None:
    """Why the environment steps of the arms differ; None where they are about the same.

    ``spent``: of each arm, over its runs. ``env_steps``: the study's budget.
    """
    means = [steps["mean"] for steps in spent]
    if not means or max(means) <= 1.1 * min(means):
        return None
    text = f"The budgets differ: from {min(means):,.0f} to {max(means):,.0f} environment steps a run. "
    if env_steps is None:
        return f"{text}Set env_steps in the study."
    if min(steps["low"] for steps in spent) < env_steps:
        return f"{text}Not every run has reached the study's env_steps={env_steps:,}."
    return (
        f"{text}Each run has reached the study's env_steps={env_steps:,} and then finished its last "
        "iteration, which takes more steps where episodes are longer; with a larger budget they differ less."
    )


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    data = [value for value in values if value is not None]
    return {"mean": sum(data) / len(data), "low": min(data), "high": max(data)} if data else None


def _mean(values: Sequence[float | None]) -> float | None:
    data = [value for value in values if value is not None]
    return math.fsum(data) / len(data) if data else None


def _ends(interval: Interval) -> list[float] | None:
    return [interval.low, interval.high] if math.isfinite(interval.low) else None
