"""What the server sends: one page of the list, and one episode, as JSON values."""

from __future__ import annotations

from collections import Counter
from typing import Any

from repro_rl.report.load import Json
from repro_rl.report.pick import clean, embedded
from repro_rl.report.view.episodes import Episode, Extreme, unpack
from repro_rl.report.view.library import Library, TrajectoryFile
from repro_rl.report.view.query import PAGE, Entry, Query, Search, select_episodes

MAX_TEXT = 200_000  # characters of one text; a browser still shows it
MAX_GROUP = 64


def row(file: TrajectoryFile, episode: Episode) -> Json:
    """An episode in the list; progress in points."""
    return {
        "key": file.key(episode),
        "run": file.run,
        "source": file.name,
        "task": episode.task,
        "rollout": episode.rollout,
        "outcome": episode.outcome,
        "truncated": episode.truncated,
        "context_full": episode.context_full,
        "score": episode.score,
        "length": episode.length,
        "online": unpack(episode.online),
        "retrospective": unpack(episode.retrospective),
        "truth": unpack(episode.truth),
        "believed": _extreme(episode.believed),
        "gap": _extreme(episode.gap),
        "online_error": _extreme(episode.online_error),
        "retrospective_error": _extreme(episode.retrospective_error),
        "judged": episode.reflection,
        "invalid": episode.invalid,
        "malformed": episode.malformed,
        "defects": list(episode.defects),
    }


def list_page(
    library: Library, search: Search, query: Query, offset: int, around: str, seconds: float
) -> Json:
    """``PAGE`` rows from ``offset``, or the page that holds the episode ``around``, where it is in the list.

    ``waiting``: files not indexed yet, ``searching``: files not searched yet; ask again while they are not 0.
    """
    library.refresh(seconds)
    entries, left = select_episodes(library, query, search, seconds)
    index = next((i for i, (f, e) in enumerate(entries) if f.key(e) == around), None) if around else None
    if index is not None:
        offset = index // PAGE * PAGE
    elif offset >= len(entries):
        offset = 0
    return {
        "count": len(entries),
        "won": sum(episode.outcome == "won" for _, episode in entries),
        "total": sum(len(file.episodes) for file in library.files),
        "offset": offset,
        "page": PAGE,
        "rows": [row(file, episode) for file, episode in entries[offset : offset + PAGE]],
        "files": len(library.files),
        "waiting": library.waiting,
        "searching": left,
        "version": library.version,
        "notes": library.notes[:20],
    }


def choices(library: Library) -> Json:
    """What the filters can be set to, with the number of episodes of each."""
    kinds: Counter[str] = Counter()
    defects: Counter[str] = Counter()
    sources: dict[str, int] = {}
    for file in library.files:
        sources[file.name] = sources.get(file.name, 0) + len(file.episodes)
        for episode in file.episodes:
            kinds[episode.kind] += 1
            defects.update(episode.defects)
    return {
        "version": library.version,
        "runs": [
            {"label": label, "folder": str(folder)}
            for label, folder in zip(library.labels, library.runs, strict=True)
        ],
        "sources": list(sources.items()),
        "kinds": sorted(kinds.items()),
        "defects": defects.most_common(),
    }


def episode_page(library: Library, key: str) -> Json:
    """One episode whole, with the other rollouts of its task in the same file. Raises DataError."""
    file, episode, record = library.read(key)
    reflection: dict[str, Any] = record["reflection"] or {}
    value = embedded(record, library.labels[file.run], file.name, MAX_TEXT)
    for page_step, step in zip(value["steps"], record["steps"], strict=True):
        page_step["prompt"] = clean(step.get("prompt"), MAX_TEXT)
    if value["reflection"]:
        value["reflection"]["prompt"] = clean(reflection.get("prompt"), MAX_TEXT)
        value["reflection"]["finished"] = bool(reflection.get("finished", True))
    same: list[Entry] = [
        (other, e) for other in library.files for e in other.episodes if e.task == episode.task
    ]
    group = [row(other, e) for other, e in same if other is file]
    elsewhere = [row(other, e) for other, e in reversed(same) if other is not file]  # the newest first
    return {
        **value,
        **row(file, episode),
        "board": library.board_size(file.run),
        "group": group[:MAX_GROUP],
        "group_size": len(group),
        "elsewhere": elsewhere[:MAX_GROUP],
        "elsewhere_size": len(elsewhere),
    }


def _extreme(value: Extreme | None) -> Json | None:
    return None if value is None else {"points": value[0], "step": value[1]}
