"""The report's numbers: the headline, the evaluation table, and the quality of progress."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repro_rl.errors import counted
from repro_rl.files import finite
from repro_rl.report.load import Json, Run
from repro_rl.report.metrics import QUALITY
from repro_rl.run.evaluations import ENDS, STARTS, dtype_notes
from repro_rl.study.numerals import fixed
from repro_rl.study.progress import POINTS, progress_quality
from repro_rl.study.stats import mean_interval, wilson
from repro_rl.study.task_types import short_name, type_order


def rate(value: Any, *, sign: bool = False) -> str:
    """A rate the way the project writes it: .61, 1.00, with ``sign`` +.61; a dash where there is none."""
    if not finite(value):
        return "–"
    text = fixed(value, 2, sign=sign)
    return text.replace("0.", ".", 1) if text.startswith(("0.", "−0.", "+0.")) else text


def number(value: Any, digits: int = 1) -> str:
    """``value`` with so many decimals; a dash where it is no finite number."""
    return fixed(value if finite(value) else None, digits)


@dataclass(slots=True)
class Evaluated:
    """One row of the evaluation table as texts, with the rates of the drawn interval."""

    run: str  # its label
    name: str  # of the evaluation
    iteration: str  # of the checkpoint
    panel: str  # its label
    setting: str  # temperature and seed, and the precision where it is known
    dtype: str  # that precision, a dash where it is unknown
    episodes: str  # with tasks x rollouts, where they are known
    success: float | None  # rate; None: not recorded
    low: float | None  # ends of its interval
    high: float | None
    score: str  # mean
    length: str  # mean steps of an episode
    invalid: str  # rate of invalid actions
    formatted: str  # rate of answers in the requested format

    @property
    def text(self) -> str:
        return rate_with_interval(self.success, self.low, self.high)


def rate_with_interval(success: Any, low: Any, high: Any) -> str:
    """``.61 [.51, .70]``, all as ``rate`` writes them; a dash where there is no rate."""
    return f"{rate(success)} [{rate(low)}, {rate(high)}]" if finite(success) else "–"


def evaluated(run: Run) -> list[Evaluated]:
    """The rows of one run. An absent interval is Wilson's, over the episodes."""
    rows = []
    for row in run.evaluations:
        low, high = bounds(row)
        tasks, rollouts = row.get("tasks"), row.get("rollouts_per_task")
        episodes = str(row.get("episodes", "–"))
        if finite(tasks) and finite(rollouts):
            episodes += f" ({tasks} × {rollouts})"
        setting = [f"T {row.get('temperature', '–')}", f"seed {row.get('seed', '–')}"]
        setting += [str(row["dtype"])] if row.get("dtype") else []
        rows.append(
            Evaluated(
                run=run.label,
                name=row["name"],
                iteration="–" if row.get("iteration") is None else str(row["iteration"]),
                panel=str(row.get("panel") or row.get("split") or "–"),
                setting=", ".join(setting),
                dtype=str(row.get("dtype") or "–"),
                episodes=episodes,
                success=row["success"] if finite(row.get("success")) else None,
                low=low,
                high=high,
                score=rate(row.get("score")),
                length=number(row.get("length")),
                invalid=rate(row.get("invalid_rate")),
                formatted=rate(row.get("format_rate")),
            )
        )
    return rows


def evaluated_with(run: Run) -> str:
    """The packages' versions in a run's evaluations, each set once with the names of its evaluations.

    Older files tell none; "" where no file tells any.
    """
    made: dict[str, list[str]] = {}
    for row in run.evaluations:
        told = row.get("versions")
        found = [f"{name} {version}" for name, version in told.items() if version] if told else []
        made.setdefault(", ".join(found) or "unknown", []).append(row["name"])
    if set(made) <= {"unknown"}:
        return ""
    if len(made) == 1:
        return next(iter(made))
    return "; ".join(f"{', '.join(names)}: {packages}" for packages, names in made.items())


@dataclass(slots=True)
class TypeTable:
    """Success per task type: one row an evaluation, one cell a type; ``kinds`` with their episodes."""

    kinds: list[str] = field(default_factory=list)
    rows: list[tuple[str, str, list[str]]] = field(default_factory=list)  # run, evaluation, cells


def type_table(runs: Sequence[Run]) -> TypeTable:
    """The evaluations that hold success per type, in the papers' order of types; broken parts are dashes."""
    table = TypeTable()
    own = [(run, row, row["by_type"]) for run in runs for row in run.evaluations if _typed(row)]
    kinds = sorted({str(kind) for _, _, types in own for kind in types}, key=type_order)
    for kind in kinds:
        counts = {types[kind].get("episodes") for _, _, types in own if kind in types}
        episodes = sorted(int(count) for count in counts if finite(count))
        table.kinds.append(f"{short_name(kind)} ({' / '.join(map(str, episodes)) or '–'})")
    for run, row, types in own:
        cells = [types.get(kind, {}) for kind in kinds]
        rates = [rate_with_interval(cell.get("success"), cell.get("low"), cell.get("high")) for cell in cells]
        table.rows.append((run.label, row["name"], rates))
    return table


def _typed(row: Json) -> bool:
    types = row.get("by_type")
    return (
        isinstance(types, dict) and all(isinstance(value, dict) for value in types.values()) and bool(types)
    )


def bounds(row: Json) -> tuple[float | None, float | None]:
    if finite(row.get("low")) and finite(row.get("high")):
        return row["low"], row["high"]
    success, episodes = row.get("success"), row.get("episodes")
    if not (finite(success) and finite(episodes)) or not 0 <= success <= 1:
        return None, None
    return wilson(round(success * int(episodes)), int(episodes))


def before_after(run: Run) -> tuple[Json | None, Json | None]:
    """The evaluations that the headline compares: the start and the best (or last), on the same panel.

    Of several panels a test split is preferred, then the one with more evaluations, then more episodes.
    """
    panels: dict[tuple[str, str], list[Json]] = {}
    for row in run.evaluations:
        if finite(row.get("success")):
            panels.setdefault((str(row.get("panel")), str(row.get("temperature"))), []).append(row)
    if not panels:
        return None, None

    def worth(rows: list[Json]) -> tuple[bool, bool, int, float]:
        episodes = rows[0].get("episodes")
        test = rows[0].get("split") == "test" or "/test" in str(rows[0].get("panel"))
        return len(rows) > 1, test, len(rows), float(episodes) if finite(episodes) else 0.0

    rows = max(panels.values(), key=worth)
    before = _named(rows, STARTS) or min(rows, key=_iteration)
    after = _named(rows, ENDS) or max(rows, key=_iteration)
    return before, after if after is not before else None


def headline(run: Run) -> str:
    """One sentence with the numbers, the panel and the intervals."""
    before, after = before_after(run)
    if before is not None:
        text = f"success on {before.get('panel') or 'an unnamed panel'}: {_success(before)}"
        if after is None:
            return f"{text} (nothing to compare with yet)"
        last = _other_end(run, after)
        return f"{text} → {_success(after)}" + (f", {_success(last)}" if last is not None else "")
    _, validation = run.series("validation/success")
    if validation:
        return (
            f"no evaluation file yet; success on validation while training {rate(validation[0])} → "
            f"{rate(validation[-1])} (best {rate(max(validation))}; intervals in the curves)"
        )
    _, training = run.series("rollout/success")
    if training:
        return (
            f"no evaluation yet; success while training {rate(training[0])} → {rate(training[-1])} "
            f"in {counted(len(training), 'iteration')} (training tasks, no interval)"
        )
    return "no success was recorded yet"


def _other_end(run: Run, after: Json) -> Json | None:
    """The last checkpoint's evaluation beside the best one's, on the same panel."""
    same = [
        row
        for row in run.evaluations
        if row.get("panel") == after.get("panel") and finite(row.get("success"))
    ]
    last = _named([row for row in same if row.get("temperature") == after.get("temperature")], ENDS[1:])
    return last if after["name"] == ENDS[0] else None


def seed_means(runs: Sequence[Run]) -> list[str]:
    """One sentence an arm with two seeds or more: mean of the final success with its t interval.

    Runs are seeds of one arm where all their settings but the seed are equal, and their evaluations alike.
    One sentence too where methods stand beside each other with one seed each.
    """
    groups: dict[tuple[object, ...], list[tuple[Run, Json]]] = {}
    for run in runs:
        _, after = before_after(run)
        if after is not None:
            played = (after.get(key) for key in ("name", "panel", "temperature", "seed", "rollouts_per_task"))
            groups.setdefault((run.method, run.conditions, *played), []).append((run, after))
    lines = []
    for found in groups.values():
        (run, after), seeds = found[0], [run.seed for run, _ in found]
        if len(set(seeds)) < len(seeds):
            twice = next(seed for seed in seeds if seeds.count(seed) > 1)
            lines.append(f"{run.method}: seed {twice} is there twice, so there is no mean over seeds.")
        elif len(seeds) > 1:
            mean = mean_interval([float(after["success"]) for _, after in found])
            lines.append(
                f"{run.method}, {after['name']}, {len(seeds)} seeds on {after.get('panel')}: mean success "
                f"{rate_with_interval(mean.mean, mean.low, mean.high)} (95 % t interval over seeds)"
            )
    if len({key[0] for key in groups}) > 1 and all(len(found) == 1 for found in groups.values()):
        lines.append(
            "One seed a method says little: another seed may turn the order round. "
            "'repro-rl compare' runs several."
        )
    return lines


def table_warnings(runs: Sequence[Run]) -> list[str]:
    """Why evaluations in one table may differ for another reason than the model: other tasks or precision."""
    return [*_panel_warnings(runs), *dtype_notes(row for run in runs for row in run.evaluations)]


def _panel_warnings(runs: Sequence[Run]) -> list[str]:
    """Warnings about evaluations of one split with different digests, which must not be compared."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for row in run.evaluations:
            label = str(row.get("panel") or "")
            if "@" in label:
                name, digest = label.split("@", 1)
                seen.setdefault(name, set()).add(digest)
    return [
        f"{name} stands for {len(digests)} different panels here ({', '.join(sorted(digests))}): "
        "figures on them do not compare."
        for name, digests in seen.items()
        if len(digests) > 1
    ]


@dataclass(slots=True)
class QualityTable:
    """Rows of (title, explanation, cells); one cell a column."""

    columns: list[tuple[str, str]] = field(default_factory=list)  # (series, when)
    rows: list[tuple[str, str, list[str]]] = field(default_factory=list)


def quality_table(moments: Sequence[tuple[str, Json | None, Sequence[Json]]]) -> QualityTable:
    """``moments``: (when, the evaluation that holds "progress" or None, its trajectories).

    Recorded figures are taken where there are any: they rest on every episode. The truth is always computed.
    """
    table = QualityTable()
    columns: list[Mapping[str, Any]] = []
    for which in ("online", "retrospective"):
        for when, row, records in moments:
            recorded = (row or {}).get("progress")
            quality = recorded.get(which) if isinstance(recorded, dict) else None
            if not isinstance(quality, dict) or not quality:
                quality = progress_quality(records, which)
            if quality.get("episodes") or any(finite(value) for value in quality.values()):
                table.columns.append((which, when))
                columns.append(quality)
    for when, _, records in moments:
        truth = progress_quality(records, "truth")
        if truth["covered"]:
            table.columns.append(("truth", when))
            columns.append(truth)
    for key, (title, meaning) in QUALITY.items():
        cells = [_cell(key, column) for column in columns]
        if any(cell != "–" for cell in cells):
            table.rows.append((title, meaning, cells))
    return table


def _cell(key: str, column: Mapping[str, Any]) -> str:
    value = column.get(key)
    if not finite(value):
        return "–"
    if key == "episodes":
        return str(value)
    text = number(value) if key in POINTS else rate(value)
    count = column.get(f"{key}_episodes") if "spearman" in key else None
    return f"{text} ({count})" if finite(count) else text


def _success(row: Json) -> str:
    return f"{row['name'].replace('-', ' ')} {rate_with_interval(row['success'], *bounds(row))}"


def _named(rows: Sequence[Json], names: Sequence[str]) -> Json | None:
    return next((row for name in names for row in rows if row["name"] == name), None)


def _iteration(row: Json) -> float:
    value = row.get("iteration")
    return float(value) if finite(value) else -math.inf
