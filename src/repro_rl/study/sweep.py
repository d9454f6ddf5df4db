"""Choose the settings of each arm on validation, before the final seeds are touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.errors import DataError
from repro_rl.files import check_record, read_json, write_json
from repro_rl.study.definition import Arm, Study, grid, label, unused_knobs
from repro_rl.study.jobs import arm_jobs
from repro_rl.study.outcomes import read_curve
from repro_rl.study.runner import is_finished


class _Point(TypedDict):
    """A point of the grid that was tried."""

    knobs: dict[str, Any]


class _Choice(TypedDict):
    """What was chosen for an arm."""

    chosen: dict[str, Any]
    scores: list[_Point]


def read_choices(out: Path) -> dict[str, Any]:
    """sweep.json: {"arms": {arm: {"chosen": knobs, "scores": [...]}}}; empty before the sweep."""
    path = out / "sweep.json"
    if not path.exists():
        return {"arms": {}}
    advice = "; delete it to choose again"
    arms = read_json(path, "sweep", {"arms": dict}, advice)["arms"]
    check_record(dict[str, _Choice], arms, file=path)
    return {"arms": arms}


def choose(study: Study, out: Path) -> dict[str, dict[str, Any]]:
    """The best point of every arm whose whole grid has finished; written to sweep.json, and not chosen again.

    A point's score is the mean of its last ``sweep.last`` validations, averaged over the sweep's seeds. A tie
    goes to the earlier point of the grid. The test panel plays no part. Arms that do not train, and arms of a
    study without a sweep, have no settings to choose; ``tuned_as`` takes another arm's. Raises DataError for
    runs that were never validated, and for a broken sweep.json.
    """
    if study.sweep is None:
        return {}
    choices = read_choices(out)
    for item in study.methods:
        points = grid(study, item)
        tried = [entry["knobs"] for entry in choices["arms"].get(item.name, {}).get("scores", [])]
        if not points or tried == points:
            continue
        scores: list[dict[str, Any]] = []
        for knobs in points:
            jobs = [arm_jobs(study, out, item, seed, knobs, sweep=True)[-1] for seed in study.sweep.seeds]
            if not all(is_finished(out, job) for job in jobs):
                break
            curves = [
                read_curve(job.folder, item.name, job.seed).success[-study.sweep.last :] for job in jobs
            ]
            if not all(curves):
                raise DataError(
                    f"the runs of {label(knobs)} were never validated; set train.validate_every.",
                    record=item.name,
                )
            by_seed = [sum(values) / len(values) for values in curves]
            scores.append({"knobs": knobs, "score": sum(by_seed) / len(by_seed), "by_seed": by_seed})
        else:
            best = max(scores, key=lambda entry: entry["score"])
            choices["arms"][item.name] = {"chosen": best["knobs"], "scores": scores}
            write_json(out / "sweep.json", {"seeds": study.sweep.seeds, "last": study.sweep.last, **choices})
    names = {item.name for item in study.methods}
    chosen = {name: dict(entry["chosen"]) for name, entry in choices["arms"].items() if name in names}
    for item in study.methods:
        if item.train and item.tuned_as in chosen:
            idle = unused_knobs(study, item)
            chosen[item.name] = {k: v for k, v in chosen[item.tuned_as].items() if k not in idle}
    return chosen


def is_chosen(study: Study, item: Arm, chosen: dict[str, dict[str, Any]]) -> bool:
    """Are the arm's settings final: it is not swept, or its sweep has finished?"""
    waits = bool(grid(study, item)) or (study.sweep is not None and item.train and item.tuned_as is not None)
    return not waits or item.name in chosen
