"""The report page: read the runs, choose episodes, draw, fill the template, write the file atomically."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from repro_rl.errors import ConfigError
from repro_rl.files import write_text
from repro_rl.report.differences import Outcomes, differences, outcomes
from repro_rl.report.figures import curves, health, others, progress_curves, rewards
from repro_rl.report.load import Json, Run, read_records, read_runs
from repro_rl.report.pick import LIMIT, choose_records, embedded, json_for_script
from repro_rl.report.plots import Figure
from repro_rl.report.tables import (
    QualityTable,
    before_after,
    evaluated,
    evaluated_with,
    headline,
    quality_table,
    seed_means,
    table_warnings,
    type_table,
)
from repro_rl.report.template import TEMPLATES, dump_yaml, fill
from repro_rl.text.digests import OWN, PACKAGE

PAGE = "report.html"  # in the (first) run
ABOUT = re.compile('<meta name="repro-rl-runs" content="([^"]*)">')
ABOUT_WITHIN = 20_000  # characters at the beginning of a page
MINUTE = "%Y-%m-%d %H:%M UTC"
SECRET = re.compile(r"(^|[_-])(api[_-]?key|secret|password|(access|auth|hf|bearer)[_-]?token)$", re.I)


@dataclass(slots=True)
class Progress:
    """The progress section of one run."""

    run: str
    table: QualityTable
    figures: list[Figure]
    basis: list[str]  # where each moment's figures come from


def build_report(runs: Sequence[Path], out: Path | None = None, *, seed: int = 0) -> Path:
    """Write one self-contained HTML page about ``runs`` and return its path.

    ``out`` defaults to ``report.html`` in the (first) run. ``seed`` decides which trajectories are carried
    where there are more than 60. Raises DataError for a path that is no folder and for a broken file.
    """
    paths = [Path(path) for path in runs]
    read = read_runs(paths)
    target = Path(out) if out is not None else paths[0] / PAGE
    write_text(target, render(read, seed=seed, about=_seen_from(target.parent, paths)))
    return target


def check_replaced(runs: Sequence[Path]) -> None:
    """The page that a report on ``runs`` replaces must be about the same runs. Raises ConfigError.

    Pages of older versions do not tell what they are about.
    """
    target = runs[0] / PAGE
    if not target.is_file():
        return
    with open(target, encoding="utf-8", errors="replace") as page:
        told = ABOUT.search(page.read(ABOUT_WITHIN))
    there: set[str] | None = None
    if told:
        with suppress(ValueError, TypeError):  # somebody edited it
            there = set(map(str, json.loads(html.unescape(told[1]))))
    if there is not None and there != set(_seen_from(target.parent, runs)):
        listed = ", ".join(sorted(os.path.normpath(target.parent / name) for name in there))
        raise ConfigError(
            f"{target} is the page about {listed}. Give this one a file of its own, such as --out "
            f"{target.with_stem('report-2')}, or delete that one."
        )


def _seen_from(folder: Path, paths: Sequence[Path]) -> list[str]:
    """The run folders relative to ``folder``: they stay right when all of them are moved."""
    return [Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix() for path in paths]


def render(runs: list[Run], *, seed: int = 0, about: Sequence[str] = ()) -> str:
    """The page's text. ``about``: the run folders, seen from that of the page."""
    browsed: list[Json] = []
    progress: list[Progress] = []
    ends: list[Outcomes] = []
    for index, run in enumerate(runs):
        share = LIMIT // len(runs) + (index < LIMIT % len(runs))
        rng = random.Random(f"{seed}/{run.label}")
        section, ended, chosen = _trajectories(run, max(1, share), rng)
        progress.append(section)
        ends.append(ended)
        browsed.extend(chosen)
    sections: dict[str, Any] = {}  # template variables of the sections with figures
    for name, note, drawn in (
        ("curves", "curve_notes", curves(runs)),
        ("rewards", "reward_notes", rewards(runs)),
        ("health", "health_notes", health(runs)),
        ("others", "other_notes", others(runs)),
    ):
        sections[name], sections[note] = drawn
    headers = [_header(run) for run in runs]
    panels: dict[tuple[str, ...], list[str]] = {}  # a panel is listed once, with the runs that used it
    for header in headers:
        for panel in header["panels"]:
            panels.setdefault(panel, []).append(header["label"])
    scripts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in ("episode.js", "report.js")]
    script = "".join(scripts)
    return fill(
        "report.html.jinja",
        title=_title(runs),
        about=json.dumps(list(about)),
        built=datetime.now(UTC).strftime(MINUTE),
        script=Markup(script),
        # Only this script may run: injected markup has no effect.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        runs=headers,
        panels=panels,
        warnings=table_warnings(runs),
        seeds=seed_means(runs),
        evaluations=[row for run in runs for row in evaluated(run)],
        differences=differences(ends),
        types=type_table(runs),
        **sections,
        progress=progress,
        browsed=len(browsed),
        data=json_for_script(browsed),
    )


def _trajectories(run: Run, limit: int, rng: random.Random) -> tuple[Progress, Outcomes, list[Json]]:
    """Measure and choose from the start and end evaluation and the first, middle and last iteration."""
    before, after = before_after(run)
    iterations = [name for name in run.trajectory_files if name.startswith("iteration ")]
    evaluations = [name for name in run.trajectory_files if not name.startswith("iteration ")]
    start, end = _source(before, evaluations), _source(after, evaluations)
    candidates = [start, *iterations[:1], *iterations[len(iterations) // 2 :][:1], *iterations[-1:], end]
    names = list(dict.fromkeys(name for name in candidates if name is not None)) or evaluations[:2]
    records = {name: list(read_records(run.trajectory_files[name])) for name in names}

    moments: list[tuple[str, Json | None, list[Json]]] = []
    basis = []
    for when, row, source, fallback in (
        ("before", before, start, iterations[:1]),
        ("after", after, end, iterations[-1:] if len(iterations) > 1 else []),
    ):
        source = source or next(iter(fallback), None)
        if row is None and source is None:
            continue
        measured = records.get(source, []) if source else []
        moments.append((when, row, measured))
        parts = [f"evaluation {row['name']} ({row['file']})"] if row and row.get("progress") else []
        if source:
            parts.append(f"{len(measured)} trajectories of {source}")
        basis.append(f"{when}: {', '.join(parts) or 'no progress recorded'}")
    drawn = [figure for when, _, measured in moments for figure in progress_curves(measured, when)]
    section = Progress(run.label, quality_table(moments), drawn, basis)

    chosen: list[Json] = []
    for position, name in enumerate(names):
        quota = (limit - len(chosen)) // (len(names) - position)
        records_of_file = choose_records(records[name], quota, rng)
        chosen += [embedded(record, run.label, name) for record in records_of_file]
    return section, outcomes(run, records, (start, end)), chosen


def _source(row: Json | None, names: Sequence[str]) -> str | None:
    """The trajectory file of an evaluation: that of the same stem or name."""
    if row is None:
        return None
    stem = row["file"].removesuffix(".json").removeprefix("eval-")
    return next((name for name in names if name in (f"eval {stem}", f"eval {row['name']}")), None)


def _header(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    revision = next((manifest[key] for key in ("git", "git_revision", "revision") if manifest.get(key)), "–")
    panels = manifest.get("panels")
    hardware = manifest.get("hardware")
    steps, seconds = run.series("env_steps")[1], run.series("seconds")[1]
    facts = [
        ("Environment", str(_setting(run, "env", "name"))),
        ("Model", _model(run)),
        ("Method", run.method),
        ("Seed", run.seed),
        ("Iterations", str(len(run.metrics)) if run.metrics else "–"),
        ("Environment steps", f"{steps[-1]:,.0f}" if steps else "–"),
        ("Wall time", _duration(seconds[-1]) if seconds else "–"),
        ("Started", _moment(manifest.get("started"))),
        ("Hardware", _flat(hardware) or "–"),
        ("Revision", _flat(revision)),
        ("Evaluated with", evaluated_with(run) or "–"),
        ("Prompts", _prompts(manifest)),
        ("Folder", str(run.path)),
    ]
    return {
        "label": run.label,
        "headline": headline(run),
        "facts": facts,
        "panels": [
            (str(name), *(str(panel.get(key, "–")) for key in ("label", "digest", "size")))
            for name, panel in (panels if isinstance(panels, dict) else {}).items()
            if isinstance(panel, dict)
        ]
        + [
            ("evaluation", *panel)
            for panel in dict.fromkeys(
                tuple(str(row.get(key, "–")) for key in ("panel", "digest", "tasks"))
                for row in run.evaluations
            )
        ],
        "notes": run.notes,
        "config": _dump(run.config),
        "manifest": _dump(manifest),
    }


def _setting(run: Run, section: str, name: str) -> Any:
    """A setting of the run's config.yaml; "–" where it has none."""
    values = run.config.get(section)
    return (values.get(name) if isinstance(values, dict) else None) or "–"


def _model(run: Run) -> str:
    """What was trained, and how large it is."""
    model = Path(str(_setting(run, "policy", "model"))).name
    count = run.manifest.get("parameters")
    size = f", {count:,} parameters" if isinstance(count, int) else ""
    return f"tiny, from random weights{size}" if model == "tiny" else f"{model}{size}"


def _prompts(manifest: Json) -> str:
    """What prompts are made with: chat template, the messages that it wants, digests; "–" if none is known.

    Manifests of older versions tell less.
    """
    text = manifest.get("text")
    known: list[str] = []
    if isinstance(text, dict) and not text.get("chat_template"):
        known.append("plain text, no chat template")
    elif isinstance(text, dict):
        known.append(f"chat template {str(text.get('chat_template_digest') or '')[:12]}".rstrip())
        if isinstance(text.get("system_message"), str):
            known.append(f"system message {text['system_message']!r}")
        if text.get("contents") == "parts":
            known.append("contents as lists of parts")
    for name, words in ((OWN, "own prompt templates"), (PACKAGE, "prompt templates of the package")):
        if isinstance(manifest.get(name), str):
            known.append(f"{words} {manifest[name][:12]}")
    return "; ".join(known) or "–"


def _moment(written: Any) -> str:
    """An ISO time to the minute, in UTC; as it is written where it is something else."""
    try:
        return datetime.fromisoformat(str(written)).astimezone(UTC).strftime(MINUTE)
    except ValueError:
        return str(written or "–")


def _title(runs: Sequence[Run]) -> str:
    return runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared"


def _dump(value: Json) -> str:
    return dump_yaml(_masked(value)) if value else ""


def _masked(value: Any) -> Any:
    """The value without secrets, as a report is made to be passed on."""
    if isinstance(value, dict):
        hidden = {key for key, item in value.items() if SECRET.search(str(key)) and item}
        return {key: "(hidden)" if key in hidden else _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item is not None)
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str("" if value is None else value)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
