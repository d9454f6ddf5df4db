"""What the server sends: one page of the list, and one episode, as JSON values."""

from __future__ import annotations

from collections import Counter
from typing import Any

from repro_rl.report.load import Json
from repro_rl.report.pick import clean, embedded
from repro_rl.report.view.episodes import Episode, Worst, unpack
from repro_rl.report.view.library import Library, Source
from repro_rl.report.view.query import PAGE, Found, Query, Search, choose

MAX_TEXT = 200_000  # characters of one text; a browser still shows it
MAX_GROUP = 64


def row(source: Source, episode: Episode) -> Json:
    """An episode in the list; progress in points."""
    return {
        "key": source.key(episode),
        "run": source.run,
        "source": source.name,
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
        "believed": _worst(episode.believed),
        "gap": _worst(episode.gap),
        "online_error": _worst(episode.online_error),
        "retrospective_error": _worst(episode.retrospective_error),
        "judged": episode.judged,
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
    found, left = choose(library, query, search, seconds)
    place = next((i for i, (s, e) in enumerate(found) if s.key(e) == around), None) if around else None
    if place is not None:
        offset = place // PAGE * PAGE
    elif offset >= len(found):
        offset = 0
    return {
        "count": len(found),
        "won": sum(episode.outcome == "won" for _, episode in found),
        "total": sum(len(source.episodes) for source in library.sources),
        "offset": offset,
        "page": PAGE,
        "rows": [row(source, episode) for source, episode in found[offset : offset + PAGE]],
        "files": len(library.sources),
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
    for source in library.sources:
        sources[source.name] = sources.get(source.name, 0) + len(source.episodes)
        for episode in source.episodes:
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
    source, episode, record = library.read(key)
    reflection: dict[str, Any] = record["reflection"] or {}
    value = embedded(record, library.labels[source.run], source.name, MAX_TEXT)
    for shown, step in zip(value["steps"], record["steps"], strict=True):
        shown["prompt"] = clean(step.get("prompt"), MAX_TEXT)
    if value["reflection"]:
        value["reflection"]["prompt"] = clean(reflection.get("prompt"), MAX_TEXT)
        value["reflection"]["finished"] = bool(reflection.get("finished", True))
    same: list[Found] = [
        (other, e) for other in library.sources for e in other.episodes if e.task == episode.task
    ]
    group = [row(other, e) for other, e in same if other is source]
    elsewhere = [row(other, e) for other, e in reversed(same) if other is not source]  # the newest first
    return {
        **value,
        **row(source, episode),
        "group": group[:MAX_GROUP],
        "group_size": len(group),
        "elsewhere": elsewhere[:MAX_GROUP],
        "elsewhere_size": len(elsewhere),
    }


def _worst(worst: Worst | None) -> Json | None:
    return None if worst is None else {"points": worst[0], "step": worst[1]}
