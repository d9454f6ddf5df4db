"""Filters and orders of the episode list, and the text search.

A text is searched for in the files, not in memory, which takes as long as reading them. So a search works for
a limited time, keeps its results, and continues with the next request.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from repro_rl.errors import ConfigError, DataError, did_you_mean
from repro_rl.files import lines_of, parse_object
from repro_rl.report.load import Json, normalised
from repro_rl.report.view.episodes import Episode, Extreme, last_value
from repro_rl.report.view.library import Library, Stamp, TrajectoryFile

Entry = tuple[TrajectoryFile, Episode]

OUTCOMES = ("won", "lost", "error", "truncated")
TROUBLES = ("reflection", "invalid", "form")  # or "defect:NAME"
PAGE = 100
REMEMBERED = 8  # searches
_PLAIN = re.compile(r"[ -!#-.0-\[\]-~]+")  # characters that JSON never escapes

SORTS: dict[str, Callable[[Episode], float | str | None]] = {
    "file": lambda episode: 0.0,  # the order of the files
    "task": lambda episode: episode.task,
    "outcome": lambda episode: episode.outcome,
    "score": lambda episode: episode.score,
    "length": lambda episode: episode.length,
    "online": lambda episode: last_value(episode.online),
    "retrospective": lambda episode: last_value(episode.retrospective),
    "truth": lambda episode: last_value(episode.truth),
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
        _check("outcome", self.outcome, ("", *OUTCOMES))
        _check("sort", self.sort, SORTS)
        if not self.trouble.startswith("defect:"):
            _check("trouble", self.trouble, ("", *TROUBLES))

    def passes(self, file: TrajectoryFile, episode: Episode) -> bool:
        """Does the episode pass every filter but the text?"""
        return (
            self.run in (None, file.run)
            and self.source in ("", file.name)
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
        _check("filter", key, Query.__dataclass_fields__)
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


def select_episodes(
    library: Library, query: Query, search: Search, seconds: float
) -> tuple[list[Entry], int]:
    """The episodes in order, and how many files the text search has still to read."""
    entries = [(f, e) for f in library.files for e in f.episodes if query.passes(f, e)]
    left = 0
    if query.text.strip():
        needed = list({id(file): file for file, _ in entries}.values())
        hits, left = search.run(query.text.strip(), needed, seconds)
        entries = [(f, e) for f, e in entries if e.line in hits.get(id(f), ())]
    if query.sort == "file":
        return entries[::-1] if query.down else entries, left
    key = SORTS[query.sort]
    valued = [(value, entry) for entry in entries if (value := key(entry[1])) is not None]
    valued.sort(key=lambda item: item[0], reverse=query.down)  # type: ignore[arg-type, return-value]
    without = [entry for entry in entries if key(entry[1]) is None]
    return [entry for _, entry in valued] + without, left


class Search:
    """Which lines of which files hold a text, in any case; prompts are not searched."""

    def __init__(self) -> None:
        self._done: OrderedDict[str, dict[tuple[Path, Stamp | None], set[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def run(
        self, text: str, files: Sequence[TrajectoryFile], seconds: float
    ) -> tuple[dict[int, set[int]], int]:
        """``id(file)`` → lines, of files read so far, and how many are left. Reads at least one file."""
        end = time.monotonic() + seconds
        needle = text.lower()
        hits: dict[int, set[int]] = {}
        with self._lock:
            done = self._done.setdefault(needle, {})
            self._done.move_to_end(needle)
            while len(self._done) > REMEMBERED:
                self._done.popitem(last=False)
            read = 0
            for file in files:
                key = (file.path, file.stamp)
                if key not in done:
                    if read and time.monotonic() > end:
                        continue
                    done[key] = _matches(file.path, needle)
                    read += 1
                hits[id(file)] = done[key]
        return hits, len(files) - len(hits)


def texts(record: Json) -> Iterator[str]:
    """What a search looks at: everything but prompts and names of fields."""
    reflection = record["reflection"] or {}
    yield from (str(record.get(key) or "") for key in ("task_id", "goal", "final_observation", "error"))
    for step in record["steps"]:
        yield from (str(step.get(key) or "") for key in ("observation", "text", "action", "feedback"))
    yield str(reflection.get("text") or "")


def _matches(path: Path, needle: str) -> set[int]:
    plain = _PLAIN.fullmatch(needle) is not None
    lines: set[int] = set()
    try:
        for line in lines_of(path, packed=True):
            if plain and needle not in line.text.decode("utf-8", "replace").lower():
                continue  # cheaper than parsing; a match may still lie in the prompt alone
            with suppress(DataError):  # a line that the library left out
                record = normalised(parse_object(line.text.rstrip(), constants=True))
                if any(needle in text.lower() for text in texts(record)):
                    lines.add(line.number)
    except DataError:
        pass  # the library notes it
    return lines


def _troubled(episode: Episode, trouble: str) -> bool:
    if trouble == "reflection":
        return episode.reflection == "broken"
    if trouble == "invalid":
        return episode.invalid > 0
    if trouble == "form":
        return episode.malformed > 0
    return trouble.removeprefix("defect:") in episode.defects


def _reaches(value: Extreme | None, least: int | None) -> bool:
    return least is None or (value is not None and value[0] >= least)


def _check(name: str, value: str, allowed: Mapping[str, object] | Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"Unknown {name} {value[:80]!r}{did_you_mean(value, [k for k in allowed if k])}")
