"""Evaluations on one panel compared task by task: what training gained, and runs beside the first one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from repro_rl.report.load import Json, Run
from repro_rl.report.tables import before_after, rate
from repro_rl.run.evaluations import STARTS, differing_condition
from repro_rl.study.stats import bootstrap_interval

Wins = Mapping[str, float]  # task id -> share of its rollouts that were won
Evaluated = tuple[Json, Wins]  # the result file, and what each task gave


@dataclass(slots=True, frozen=True)
class Outcomes:
    """A run's evaluations before and after training, with what each task gave; None where it is unknown."""

    run: Run
    before: Evaluated | None
    after: Evaluated | None

    @property
    def trained(self) -> Evaluated | None:
        """The evaluation after training, also where the start was not evaluated."""
        alone = self.after is None and self.before is not None and self.before[0]["name"] not in STARTS
        return self.before if alone else self.after


@dataclass(slots=True, frozen=True)
class Difference:
    """A row of the table, as texts."""

    minuend: str
    subtrahend: str
    difference: str  # +.12 [+.05, +.19]
    tasks: str  # 30 better, 12 worse, of 100


def outcomes(run: Run, records: Mapping[str, Sequence[Json]], sources: Sequence[str | None]) -> Outcomes:
    """The two evaluations of the headline; ``sources``: the names of their trajectories in ``records``."""
    both: list[Evaluated | None] = []
    for row, source in zip(before_after(run), sources, strict=True):
        wins = wins_by_task(records.get(source or "", ()))
        both.append((row, wins) if row is not None and len(wins) == row.get("tasks") else None)
    return Outcomes(run, both[0], both[1])


def wins_by_task(records: Iterable[Json]) -> dict[str, float]:
    """The share of won episodes of each task."""
    won: dict[str, list[bool]] = {}
    for record in records:
        won.setdefault(str(record.get("task_id")), []).append(bool(record.get("won")))
    return {task: sum(each) / len(each) for task, each in won.items()}


def differences(found: Sequence[Outcomes]) -> list[Difference]:
    """After minus before of every run, then the first run after training minus each other run."""
    pairs = [((run, run.after), (run, run.before)) for run in found]
    pairs += [((found[0], found[0].trained), (run, run.trained)) for run in found[1:]]
    rows = []
    for (run, one), (beside, other) in pairs:
        if one is not None and other is not None and _comparable(one, other):
            owner = run if len(found) > 1 else None
            names = _name(one, owner), _name(other, None if beside is run else beside)
            rows.append(_difference(*names, one[1], other[1]))
    return rows


def _comparable(one: Evaluated, other: Evaluated) -> bool:
    """Whether a task is the same task in both."""
    if "digest" not in one[0] or one[1].keys() != other[1].keys():
        return False
    return differing_condition(one[0], other[0]) is None


def _difference(minuend: str, subtrahend: str, one: Wins, other: Wins) -> Difference:
    gains = np.array([one[task] - other[task] for task in sorted(one)])
    span = bootstrap_interval(gains.tolist())
    # Resamples of equal values are equal: their interval would show a certainty that is not there.
    spread = span.low < span.high
    ends = f" [{rate(span.low, sign=True)}, {rate(span.high, sign=True)}]" if spread else ""
    counts = f"{(gains > 0).sum()} better, {(gains < 0).sum()} worse, of {len(gains)}"
    return Difference(minuend, subtrahend, rate(span.mean, sign=True) + ends, counts)


def _name(evaluation: Evaluated, owner: Outcomes | None) -> str:
    """The evaluation's name, behind that of its run where ``owner`` is given."""
    name = str(evaluation[0]["name"]).replace("-", " ")
    return name if owner is None else f"{owner.run.label}, {name}"
