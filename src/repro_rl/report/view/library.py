"""The trajectory files of some runs: each is indexed once, and a record is read when it is asked for.

In memory are only summaries (``Episode``). A file that cannot be read to its end gives what stands before the
break and a note. Only files inside the given folders are opened.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError
from repro_rl.report.load import Json, read_runs
from repro_rl.report.view.episodes import Episode, normal, summarise

Stamp = tuple[int, int, int]  # inode, bytes and time of change: another one is another content
ENDING = ".jsonl.gz"


@dataclass(slots=True)
class Source:
    """One trajectory file."""

    run: int  # position of the run
    stem: str  # file name without its ending; with ``run`` it names the source
    file: Path
    name: str  # as people read it: "iteration 12", "eval best"
    order: tuple[int, int, str]
    stamp: Stamp | None = None  # None: not indexed yet
    episodes: list[Episode] = field(default_factory=list)  # by line
    notes: list[str] = field(default_factory=list)

    def key(self, episode: Episode) -> str:
        return f"{self.run}/{self.stem}/{episode.line}"


class Library:
    """The episodes of ``runs``. Raises DataError when one is no folder or no run.

    ``labels``: one a run; ``sources``: the files in reading order; ``version`` changes with every change.
    """

    def __init__(self, runs: Sequence[Path]) -> None:
        self.runs = [Path(run) for run in runs]
        for run in self.runs:
            _check(run)
        self.labels, self.run_notes = _labels(self.runs)
        self.sources: list[Source] = []
        self.version = 0
        self._by_name: dict[tuple[int, str], Source] = {}
        self._stray: list[str] = []
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many files are not indexed yet."""
        return sum(source.stamp is None for source in self.sources)

    @property
    def notes(self) -> list[str]:
        found = [f"{s.file}: {note}" for s in self.sources for note in s.notes]
        return [*self.run_notes, *self._stray, *found]

    def refresh(self, seconds: float) -> None:
        """See which files are new, changed or gone, and index for about ``seconds``, one file at least."""
        end = time.monotonic() + seconds
        with self._lock:
            self._look()
            for source in self.sources:
                if source.stamp is None:
                    self._index(source)
                    if time.monotonic() > end:
                        return

    def find(self, key: str) -> tuple[Source, Episode]:
        """The episode of a key ("run/file/line"). Raises DataError when there is none."""
        run, _, rest = key.partition("/")
        stem, _, line = rest.rpartition("/")
        if run.isdecimal() and line.isdecimal() and len(run) < 6 and len(line) < 12:
            source = self._by_name.get((int(run), stem))
            if source is not None:
                place = bisect_left(source.episodes, int(line), key=lambda episode: episode.line)
                if place < len(source.episodes) and source.episodes[place].line == int(line):
                    return source, source.episodes[place]
        raise DataError("There is no such episode here; its file may have changed. Choose one from the list.")

    def read(self, key: str) -> tuple[Source, Episode, Json]:
        """An episode with its whole record. Raises DataError when it is not there any more."""
        source, episode = self.find(key)
        if _stamp(source.file) != source.stamp:  # rewritten: the place of the line may be another
            with self._lock:
                if source.file.is_file():
                    self._index(source)
            source, episode = self.find(key)
        try:
            with gzip.open(source.file) as lines:
                lines.seek(episode.offset)
                record = normal(json.loads(lines.read(episode.size)))
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            raise DataError(
                f"cannot be read any more: {error}", file=source.file.name, record=f"line {episode.line}"
            ) from error
        if record is None:
            raise DataError("an object was expected", file=source.file.name, record=f"line {episode.line}")
        return source, episode, record

    def _look(self) -> None:
        found: list[Source] = []
        self._stray = []
        for run, folder in enumerate(self.runs):
            inside = folder.resolve()
            for file in _files(folder):
                if not file.is_file():
                    continue
                if not file.resolve().is_relative_to(inside):
                    self._stray.append(f"{file.name} leads out of the run {folder} and was left out.")
                    continue
                stem = file.name.removesuffix(ENDING)
                source = self._by_name.get((run, stem)) or _source(run, stem, file)
                if source.stamp is not None and source.stamp != _stamp(file):
                    source.stamp = None
                found.append(source)
        found.sort(key=lambda source: source.order)
        if [id(source) for source in found] != [id(source) for source in self.sources]:
            self.version += 1
        self._by_name = {(source.run, source.stem): source for source in found}
        self.sources = found

    def _index(self, source: Source) -> None:
        stamp = _stamp(source.file)
        notes: list[str] = []
        episodes: list[Episode] = []
        try:
            for line, offset, size, value in records(source.file, notes):
                record = normal(value)
                if record is None:
                    notes.append(f"line {line} is no JSON object and was left out.")
                    continue
                try:
                    episodes.append(summarise(record, line, offset, size))
                except (ArithmeticError, TypeError, ValueError) as error:  # such as numbers beyond any float
                    notes.append(f"line {line} was left out: {error}.")
        except DataError as error:
            before = f"; the {len(episodes)} episodes before it are shown" if episodes else ""
            notes.append(f"{error}{before}.")
        source.episodes, source.notes, source.stamp = episodes, notes[:5], stamp
        if len(notes) > 5:
            source.notes.append(f"{len(notes) - 5} more lines were left out.")
        self.version += 1


def records(file: Path, notes: list[str]) -> Iterator[tuple[int, int, int, Any]]:
    """(line, offset, bytes, value) of every line that is JSON; the others go to ``notes``.

    Raises DataError where the file breaks off.
    """
    line = 0
    try:
        for line, offset, text in raw_lines(file):
            try:
                yield line, offset, len(text), json.loads(text)
            except (ValueError, RecursionError):
                notes.append(f"line {line} is not JSON and was left out.")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"not a whole gzip file, broken after line {line} ({error})") from error


def raw_lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line from 1, offset, bytes) of every line that is not blank. Raises what gzip raises."""
    offset = 0
    with gzip.open(file) as lines:
        for number, text in enumerate(lines, 1):
            if text.strip():
                yield number, offset, text
            offset += len(text)


def _files(folder: Path) -> list[Path]:
    """The run's trajectory files; where it has none, those beside them, as ``repro-rl demos`` writes."""
    inside = sorted((folder / "trajectories").glob(f"*{ENDING}"))
    return [
        file
        for file in inside or sorted(folder.glob(f"*{ENDING}"))
        if not file.name.startswith(".")  # half-written ones
    ]


def _source(run: int, stem: str, file: Path) -> Source:
    match = re.fullmatch(r"iteration-(\d+)", stem)
    if match:
        return Source(run, stem, file, f"iteration {int(match[1])}", (run, int(match[1]), stem))
    return Source(run, stem, file, re.sub(r"^eval-", "eval ", stem), (run, 10**12, stem))


def _stamp(file: Path) -> Stamp | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _check(run: Path) -> None:
    if not run.is_dir():
        raise DataError("No such run folder; give the folder that holds trajectories/.", file=run)
    if _files(run) or any((run / name).exists() for name in ("trajectories", "manifest.json", "config.yaml")):
        return
    below = sorted(str(folder.parent) for folder in run.glob("*/trajectories"))
    hint = f"did you mean {' '.join(below)}?" if below else "give the folder that holds trajectories/."
    raise DataError(f"No run: neither trajectories nor settings are in it; {hint}", file=run)


def _labels(runs: list[Path]) -> tuple[list[str], list[str]]:
    """Method and seed of each run as the report names them, or folder names where a run is broken."""
    try:
        return [run.label for run in read_runs(runs)], []
    except DataError as error:
        return [str(run) for run in runs], [str(error)]
