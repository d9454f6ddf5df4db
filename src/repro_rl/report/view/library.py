"""The trajectory files of some runs: each is indexed once, and a record is read when it is asked for.

Only summaries (``Episode``) stay in memory. A file that is broken gives the episodes before the break, and a
note. Only files inside the given folders are opened.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError, clause
from repro_rl.files import Unpacked, lines_of, parse_json, parse_object
from repro_rl.files.names import CONFIG_FILE, MANIFEST_FILE, RECORDS, TRAJECTORIES
from repro_rl.report.load import Json, file_title, normalised, read_runs
from repro_rl.report.view.episodes import Episode, summarise

Stamp = tuple[int, int, int]  # inode, bytes and time of change; it changes with the content
MAX_NOTES = 5  # of a file
DEFAULT_SIDE = 6  # rows, and columns, of a generated room, where the settings leave them out


@dataclass(slots=True)
class Notes:
    """What was left out of a file; a damaged one may have a note a line, of which a few are kept."""

    first: list[str] = field(default_factory=list)
    more: int = 0  # not kept
    end: str = ""  # why no more of the file is shown

    def add(self, text: str) -> None:
        if len(self.first) < MAX_NOTES:
            self.first.append(text)
        else:
            self.more += 1

    def __iter__(self) -> Iterator[str]:
        yield from self.first
        if self.more:
            yield f"{self.more} more lines were left out."
        if self.end:
            yield self.end


@dataclass(slots=True)
class TrajectoryFile:
    """One trajectory file."""

    run: int  # index of the run
    stem: str  # file name without its ending; unique in a run
    path: Path
    name: str  # as people read it: "iteration 12", "eval best"
    order: tuple[int, int, str]
    stamp: Stamp | None = None  # None: not indexed yet
    episodes: list[Episode] = field(default_factory=list)  # by line
    notes: list[str] = field(default_factory=list)

    def key(self, episode: Episode) -> str:
        return f"{self.run}/{self.stem}/{episode.line}"


class Library:
    """The episodes of ``runs``. Raises DataError when one is no folder or no run.

    ``labels``: one a run; ``files``: in reading order; ``version`` changes whenever the episodes change.
    """

    def __init__(self, runs: Sequence[Path]) -> None:
        self.runs = [Path(run) for run in runs]
        for run in self.runs:
            _check(run)
        self.labels, self.run_notes, self._settings = _labels(self.runs)
        self.files: list[TrajectoryFile] = []
        self.version = 0
        self._by_name: dict[tuple[int, str], TrajectoryFile] = {}
        self._outside: list[str] = []
        self._lock = threading.Lock()

    def board_size(self, run: int) -> list[int] | None:
        """Rows and columns of the rooms of a run on generated Sokoban; None for another run."""
        env = self._settings[run].get("env")
        env = env if isinstance(env, dict) else {}
        settings = env.get("settings")
        settings = settings if isinstance(settings, dict) else {}
        if env.get("name") != "sokoban" or settings.get("levels"):
            return None
        size = [settings.get("rows", DEFAULT_SIDE), settings.get("cols", DEFAULT_SIDE)]
        return size if all(isinstance(side, int) for side in size) else None

    @property
    def waiting(self) -> int:
        """How many files are not indexed yet."""
        return sum(file.stamp is None for file in self.files)

    @property
    def notes(self) -> list[str]:
        broken = [f"{f.path}: {note}" for f in self.files for note in f.notes]
        return [*self.run_notes, *self._outside, *broken]

    def refresh(self, seconds: float) -> None:
        """Look for new, changed and removed files, then index for about ``seconds``, at least one file."""
        end = time.monotonic() + seconds
        with self._lock:
            self._scan()
            for file in self.files:
                if file.stamp is None:
                    self._index(file)
                    if time.monotonic() > end:
                        return

    def find(self, key: str) -> tuple[TrajectoryFile, Episode]:
        """The episode of a key ("run/file/line"). Raises DataError when there is none."""
        run, _, rest = key.partition("/")
        stem, _, line = rest.rpartition("/")
        if run.isdecimal() and line.isdecimal() and len(run) < 6 and len(line) < 12:
            file = self._by_name.get((int(run), stem))
            if file is not None:
                index = bisect_left(file.episodes, int(line), key=lambda episode: episode.line)
                if index < len(file.episodes) and file.episodes[index].line == int(line):
                    return file, file.episodes[index]
        raise DataError("There is no such episode here; its file may have changed. Choose one from the list.")

    def read(self, key: str) -> tuple[TrajectoryFile, Episode, Json]:
        """An episode with its whole record. Raises DataError when it is not there any more."""
        file, episode = self.find(key)
        if _stamp(file.path) != file.stamp:  # rewritten: the offset of the line may have changed
            with self._lock:
                if file.path.is_file():
                    self._index(file)
            file, episode = self.find(key)
        where = f"line {episode.line}"
        try:
            with Unpacked(file.path, packed=True) as lines:
                lines.seek(episode.offset)
                record = parse_object(
                    lines.read(episode.size), file=file.path.name, record=where, constants=True
                )
        except DataError as error:
            raise DataError(f"cannot be read any more: {error}", file=file.path.name, record=where) from error
        return file, episode, normalised(record)

    def _scan(self) -> None:
        """Look for new, changed and removed files."""
        files: list[TrajectoryFile] = []
        self._outside = []
        for run, folder in enumerate(self.runs):
            inside = folder.resolve()
            for path in _paths(folder):
                if not path.is_file():
                    continue
                if not path.resolve().is_relative_to(inside):
                    self._outside.append(f"{path.name} leads out of the run {folder} and was left out.")
                    continue
                stem = path.name.removesuffix(RECORDS)
                file = self._by_name.get((run, stem)) or _trajectory_file(run, stem, path)
                if file.stamp is not None and file.stamp != _stamp(path):
                    file.stamp = None
                files.append(file)
        files.sort(key=lambda file: file.order)
        if [id(file) for file in files] != [id(file) for file in self.files]:
            self.version += 1
        self._by_name = {(file.run, file.stem): file for file in files}
        self.files = files

    def _index(self, file: TrajectoryFile) -> None:
        stamp = _stamp(file.path)
        notes = Notes()
        episodes: list[Episode] = []
        try:
            for line, offset, size, value in json_lines(file.path, notes):
                if not isinstance(value, dict):
                    notes.add(f"line {line} is no JSON object and was left out.")
                    continue
                if "steps" not in value:
                    notes.add(f"line {line} is no episode, as it has no steps, and was left out.")
                    continue
                try:
                    episodes.append(summarise(normalised(value), line, offset, size))
                except (ArithmeticError, TypeError, ValueError) as error:  # such as numbers beyond any float
                    notes.add(f"line {line} was left out: {clause(error)}.")
        except DataError as error:
            before = f"; the {len(episodes)} episodes before it are shown" if episodes else ""
            notes.end = f"{error}{before}."
        file.episodes, file.notes, file.stamp = episodes, list(notes), stamp
        self.version += 1


def json_lines(path: Path, notes: Notes) -> Iterator[tuple[int, int, int, Any]]:
    """(line, offset, bytes, value) of every line that is JSON; the others go to ``notes``.

    Raises DataError where the file breaks off.
    """
    last = 0
    lines = lines_of(path, packed=True)
    while True:
        try:
            line = next(lines, None)
        except DataError as error:
            raise DataError(f"broken after line {last} ({error})") from error
        if line is None:
            return
        last = line.number
        try:
            value = parse_json(line.text.rstrip(), constants=True)
        except DataError as error:
            notes.add(f"line {last} was left out ({error}).")
        else:
            yield last, line.offset, len(line.text), value


def _paths(folder: Path) -> list[Path]:
    """The run's trajectory files; where it has none, those beside them, as ``repro-rl demos`` writes."""
    inside = sorted((folder / TRAJECTORIES).glob(f"*{RECORDS}"))
    return [
        path
        for path in inside or sorted(folder.glob(f"*{RECORDS}"))
        if not path.name.startswith(".")  # half-written ones
    ]


def _trajectory_file(run: int, stem: str, path: Path) -> TrajectoryFile:
    match = re.fullmatch(r"iteration-(\d+)", stem)
    order = int(match[1]) if match else 10**12
    return TrajectoryFile(run, stem, path, file_title(stem), (run, order, stem))


def _stamp(path: Path) -> Stamp | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _check(run: Path) -> None:
    if not run.is_dir():
        raise DataError("No such run folder; give the folder that holds trajectories/.", file=run)
    if _paths(run) or any((run / name).exists() for name in (TRAJECTORIES, MANIFEST_FILE, CONFIG_FILE)):
        return
    below = sorted(str(folder.parent) for folder in run.glob("*/trajectories"))
    hint = f"did you mean {' or '.join(below)}?" if below else "give the folder that holds trajectories/."
    raise DataError(f"No run: neither trajectories nor settings are in it; {hint}", file=run)


def _labels(runs: list[Path]) -> tuple[list[str], list[str], list[Json]]:
    """Method and seed of each run as the report names them, or folder names where a run is broken.

    Then notes, and the settings of each run.
    """
    try:
        read = read_runs(runs)
        return [run.label for run in read], [], [run.config for run in read]
    except DataError as error:
        return [str(run) for run in runs], [str(error)], [{} for _ in runs]
