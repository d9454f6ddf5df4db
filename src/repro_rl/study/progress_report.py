"""The analysis of the progress signal on recorded episodes: every measure of every set, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repro_rl.study.agreement import REFERENCES, Rows, agreement, references
from repro_rl.study.findings import findings
from repro_rl.study.progress import PARTS, compare_series, measures
from repro_rl.study.recorded import EpisodeSet, RecordedEpisode, clusters, find_episode_sets, read_episodes
from repro_rl.study.reliability import reliability
from repro_rl.study.resample import Resampler
from repro_rl.study.series import SERIES, Which, at_fractions, spearman
from repro_rl.study.stats import column_intervals, mean_interval

POINTS = 11  # of the curves over the episode
RANK_BINS = 20  # of the histograms of rank correlations, -1..1


def analyse(
    paths: Sequence[Path],
    evals: Sequence[str] = (),
    *,
    training: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    on_set: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure the recorded episodes of run folders or ``*.jsonl.gz`` files; the content of progress.json.

    ``sets``: one a run and evaluation (or "training"), each as ``measure_set`` gives it; ``methods``: means
    over runs with 95 % t intervals where several runs of one method have the same evaluation on one panel.
    ``evals`` and ``training`` as in ``find_episode_sets``. ``on_set`` is called with the name of each set as
    it begins. Raises DataError.
    """
    sets = []
    for episode_set in find_episode_sets(paths, evals, training=training):
        if on_set is not None:
            on_set(f"{episode_set.run}, {episode_set.name}")
        episodes = read_episodes(episode_set)
        sets.append(measure_set(episode_set, episodes, resamples=resamples, seed=seed))
    return {
        "settings": {"resamples": resamples, "seed": seed, "confidence": 0.95},
        "sets": sets,
        "methods": over_runs(sets),
    }


def measure_set(
    episode_set: EpisodeSet, episodes: Sequence[RecordedEpisode], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """All measures of one set of episodes, as plain JSON values."""
    names, unit = clusters(episodes)
    sampler = Resampler(names, resamples=resamples, seed=seed)
    settings = episode_set.settings
    compared = references(episodes, settings.gamma)
    successes = sum(episode.won for episode in episodes)
    row: dict[str, Any] = {
        "run": episode_set.run,
        "method": settings.method,
        "seed": settings.seed,
        "name": episode_set.name,
        "panel": episode_set.panel,
        "files": [file.name for file in episode_set.files],
        "gamma": settings.gamma,
        "episodes": len(episodes),
        "successes": successes,
        "failures": len(episodes) - successes,
        "won_share": successes / len(episodes) if episodes else None,
        "tasks": len({episode.task for episode in episodes}),
        "resampled": unit,
        "clusters": sampler.clusters,
        "series": {
            which: _measure_series(episodes, which, compared, sampler)
            for which in SERIES
            if any(episode.series[which].reported() for episode in episodes)
        },
        "paired": compare_series(episodes, sampler),
        "notes": list(settings.notes),
    }
    row["findings"], row["warnings"] = findings(row)
    return row


def _measure_series(
    episodes: Sequence[RecordedEpisode], which: Which, compared: dict[str, Rows], sampler: Resampler
) -> dict[str, Any]:
    return {
        "measures": measures(episodes, which, sampler),
        "reliability": {
            "truth": reliability(episodes, which, "truth", sampler),
            "success": reliability(episodes, which, "success", sampler),
        },
        "agreement": {
            name: {
                "all": agreement(episodes, which, compared[name], sampler),
                "before_end": agreement(episodes, which, compared[name], sampler, before_end=True),
            }
            for name in REFERENCES
            if name != which
        },
        "curves": {part: _curve(episodes, which, won) for part, won in PARTS},
        "ranks": {part: _ranks(episodes, which, won) for part, won in PARTS},
    }


def over_runs(sets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each method, set name and panel with at least two runs: means over the runs with t intervals.

    A run counts once, whatever its number of episodes: here the run, or seed, is the independent unit.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in sets:
        if row["method"] not in ("–", "unknown method"):
            groups.setdefault((row["method"], row["name"], row["panel"]), []).append(row)
    result = []
    for (method, name, panel), rows in groups.items():
        if len(rows) < 2:
            continue
        series = {
            which: {
                "measures": _mean(
                    [row["series"][which]["measures"] for row in rows if which in row["series"]]
                ),
                "agreement": {
                    reference: _mean([_shares(row, which, reference) for row in rows])
                    for reference in REFERENCES
                },
                "ece": _mean([_errors(row, which) for row in rows]),
            }
            for which in SERIES
            if any(which in row["series"] for row in rows)
        }
        result.append(
            {
                "method": method,
                "name": name,
                "panel": panel,
                "runs": [row["run"] for row in rows],
                "seeds": [row["seed"] for row in rows],
                "series": series,
                "paired": _mean([row["paired"] for row in rows]),
            }
        )
    return result


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{name: {value, low, high, runs}} over rows of {name: {value, ...}}; runs without a value left out."""
    result = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name]["value"] for row in rows if name in row and row[name]["value"] is not None]
        if values:
            mean = mean_interval(values)
            ends = [None if math.isnan(end) else end for end in (mean.low, mean.high)]
            result[name] = {"value": mean.mean, "low": ends[0], "high": ends[1], "runs": mean.size}
    return result


def _block(row: dict[str, Any], which: str) -> dict[str, Any]:
    block: dict[str, Any] = row["series"].get(which) or {}
    return block


def _shares(row: dict[str, Any], which: str, reference: str) -> dict[str, Any]:
    parts = (_block(row, which).get("agreement") or {}).get(reference) or {}
    return {part: value["share"] for part, value in parts.items() if value is not None}


def _errors(row: dict[str, Any], which: str) -> dict[str, Any]:
    parts = _block(row, which).get("reliability") or {}
    return {against: value["ece"] for against, value in parts.items() if value is not None}


def _curve(episodes: Sequence[RecordedEpisode], which: str, won: bool) -> dict[str, Any]:
    """Mean progress at equal fractions of the episode, points, with 95 % t intervals over episodes."""
    grid = np.linspace(0, 1, POINTS)
    rows = [
        row
        for episode in episodes
        if episode.won is won and (row := at_fractions(episode.series[which].series, grid)) is not None
    ]
    return {"episodes": len(rows), **column_intervals(100 * np.array(rows))}


def _ranks(episodes: Sequence[RecordedEpisode], which: str, won: bool) -> dict[str, Any]:
    """Histogram of the rank correlations within an episode, ``counts`` in equal bins from -1 to 1."""
    values = [
        value
        for episode in episodes
        if episode.won is won and (value := spearman(episode.series[which].pairs())) is not None
    ]
    counts = np.histogram(values, bins=RANK_BINS, range=(-1, 1))[0]
    return {
        "episodes": len(values),
        "counts": counts.tolist(),
        "negative": sum(value < 0 for value in values),
    }
