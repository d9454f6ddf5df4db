"""Filters and orders of the episode list, and the text search.

A text is searched for in the files, not in memory: that takes as long as reading them, so a search works for
some time, keeps what it has, and goes on when it is asked again.
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.report.load import Json
from repro_rl.report.view.episodes import Episode, last, normal
from repro_rl.report.view.library import Library, Source, Stamp, raw_lines

Found = tuple[Source, Episode]

OUTCOMES = ("won", "lost", "error", "truncated")
TROUBLES = ("reflection", "invalid", "form")  # or "defect:NAME"
PAGE = 100
REMEMBERED = 8  # searches
_PLAIN = re.compile(r"[ -!#-.0-\[\]-~]+")  # written in JSON as it stands, whoever wrote it

SORTS: dict[str, Callable[[Episode], float | str | None]] = {
    "file": lambda episode: 0.0,  # the order of the files
    "task": lambda episode: episode.task,
    "outcome": lambda episode: episode.outcome,
    "score": lambda episode: episode.score,
    "length": lambda episode: episode.length,
    "online": lambda episode: last(episode.online),
    "retrospective": lambda episode: last(episode.retrospective),
    "truth": lambda episode: last(episode.truth),
    "believed": lambda episode: episode.believed and episode.believed[0],
    "gap": lambda episode: episode.gap and episode.gap[0],
    "online_error": lambda episode: episode.online_error and episode.online_error[0],
    "retrospective_error": lambda episode: episode.retrospective_error and episode.retrospective_error[0],
    "invalid": lambda episode: episode.invalid,
    "malformed": lambda episode: episode.malformed,
}


@dataclass(slots=True, frozen=True)
class Query:
    """What to list. "" and None: no restriction. Raises ConfigError for an unknown value."""

    run: int | None = None
    source: str = ""  # name of the file, "iteration 12"
    outcome: str = ""
    kind: str | None = None  # type of task
    task: str = ""  # exactly this one
    trouble: str = ""
    believed: int | None = None  # progress claimed at least once, points
    gap: int | None = None  # online and retrospective at least so far apart, points
    text: str = ""
    sort: str = "file"
    down: bool = False

    def __post_init__(self) -> None:
        _known("outcome", self.outcome, ("", *OUTCOMES))
        _known("sort", self.sort, SORTS)
        if not self.trouble.startswith("defect:"):
            _known("trouble", self.trouble, ("", *TROUBLES))

    def passes(self, source: Source, episode: Episode) -> bool:
        """Everything but the text."""
        return (
            self.run in (None, source.run)
            and self.source in ("", source.name)
            and self.kind in (None, episode.kind)
            and self.task in ("", episode.task)
            and (
                not self.outcome
                or episode.outcome == self.outcome
                or (self.outcome == "truncated" and episode.truncated)
            )
            and (not self.trouble or _troubled(episode, self.trouble))
            and _reaches(episode.believed, self.believed)
            and _reaches(episode.gap, self.gap)
        )


def parse_query(fields: Mapping[str, str]) -> Query:
    """The query of URL fields. Raises ConfigError for an unknown field, a bad number or an unknown value."""
    given = {key: value for key, value in fields.items() if value != "" or key == "kind"}
    for key in given:
        _known("filter", key, Query.__dataclass_fields__)
    values: dict[str, str | int | bool] = dict(given)
    for key in ("run", "believed", "gap"):
        if key in given:
            values[key] = whole(key, given[key])
    values["down"] = given.get("down") == "1"
    return Query(**values)  # type: ignore[arg-type]


def whole(name: str, value: str) -> int:
    """A whole number of at most nine digits. Raises ConfigError."""
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ConfigError(f"{name} must be a whole number, not {value[:40]!r}.")
    return int(value)


def choose(library: Library, query: Query, search: Search, seconds: float) -> tuple[list[Found], int]:
    """The episodes in order, and how many files the text search has still to read."""
    sources = library.sources
    found = [(s, e) for s in sources for e in s.episodes if query.passes(s, e)]
    left = 0
    if query.text.strip():
        needed = list({id(source): source for source, _ in found}.values())
        hits, left = search.run(query.text.strip(), needed, seconds)
        found = [(s, e) for s, e in found if e.line in hits.get(id(s), ())]
    if query.sort == "file":
        return found[::-1] if query.down else found, left
    key = SORTS[query.sort]
    valued = [(value, pair) for pair in found if (value := key(pair[1])) is not None]
    valued.sort(key=lambda item: item[0], reverse=query.down)  # type: ignore[arg-type, return-value]
    return [pair for _, pair in valued] + [pair for pair in found if key(pair[1]) is None], left


class Search:
    """Which lines of which files hold a text, in any case; prompts are not searched."""

    def __init__(self) -> None:
        self._done: OrderedDict[str, dict[tuple[Path, Stamp | None], set[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, text: str, sources: Sequence[Source], seconds: float) -> tuple[dict[int, set[int]], int]:
        """``id(source)`` → lines, of files read so far, and how many are left. Reads at least one file."""
        end = time.monotonic() + seconds
        needle = text.lower()
        hits: dict[int, set[int]] = {}
        with self._lock:
            done = self._done.setdefault(needle, {})
            self._done.move_to_end(needle)
            while len(self._done) > REMEMBERED:
                self._done.popitem(last=False)
            read = 0
            for source in sources:
                key = (source.file, source.stamp)
                if key not in done:
                    if read and time.monotonic() > end:
                        continue
                    done[key] = _matches(source.file, needle)
                    read += 1
                hits[id(source)] = done[key]
        return hits, len(sources) - len(hits)


def texts(record: Json) -> Iterator[str]:
    """What a search looks at: everything but prompts and names of fields."""
    reflection = record["reflection"] or {}
    yield from (str(record.get(key) or "") for key in ("task_id", "goal", "final_observation", "error"))
    for step in record["steps"]:
        yield from (str(step.get(key) or "") for key in ("observation", "text", "action", "feedback"))
    yield str(reflection.get("text") or "")


def _matches(file: Path, needle: str) -> set[int]:
    plain = _PLAIN.fullmatch(needle) is not None
    lines: set[int] = set()
    try:
        for line, _, raw in raw_lines(file):
            if plain and needle not in raw.decode("utf-8", "replace").lower():
                continue  # cheaper than parsing; the prompt may still be all that holds it
            try:
                record = normal(json.loads(raw))
            except (ValueError, RecursionError):
                continue
            if record is not None and any(needle in text.lower() for text in texts(record)):
                lines.add(line)
    except (OSError, EOFError, zlib.error):
        pass  # the index has a note on it
    return lines


def _troubled(episode: Episode, trouble: str) -> bool:
    if trouble == "reflection":
        return episode.judged == "broken"
    if trouble == "invalid":
        return episode.invalid > 0
    if trouble == "form":
        return episode.malformed > 0
    return trouble.removeprefix("defect:") in episode.defects


def _reaches(worst: tuple[int, int] | None, least: int | None) -> bool:
    return least is None or (worst is not None and worst[0] >= least)


def _known(name: str, value: str, known: Mapping[str, object] | Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"Unknown {name} {value[:80]!r}{did_you_mean(value, [k for k in known if k])}")
