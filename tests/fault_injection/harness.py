"""Reads damaged files and sorts what happens; one line of a table per reader."""

from __future__ import annotations

import gzip
import io
import signal
import traceback
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fault_injection.damage import damaged
from fault_injection.readers import Reader
from repro_rl.errors import ReproError

SECONDS = 20  # of the processor, after which a read counts as a hang
WAITED = 15  # times as long by the clock: what waits takes no time of the processor
KEPT = 5  # examples of a fault
UNPACKED = 1 << 30  # bytes


@dataclass(slots=True)
class Tally:
    """What became of the damaged files of one reader."""

    reader: str
    files: int = 0  # damaged files read
    unchanged: int = 0  # the damage changed no byte
    refused: int = 0  # an error of the package that names the file
    read: int = 0  # read, as before or with other values that nothing can tell
    tracebacks: int = 0
    hangs: int = 0
    unnamed: int = 0  # an error of the package without the file's name
    silent: int = 0  # other values, although a checksum can tell
    examples: list[str] = field(default_factory=list)  # of faults

    @property
    def faults(self) -> int:
        return self.tracebacks + self.hangs + self.unnamed + self.silent

    def fault(self, kind: str, text: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < KEPT:
            self.examples.append(f"{kind}: {text}")

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


class Hang(BaseException):
    """Raised inside a read that takes too long."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Hang inside after some seconds of the processor. Main thread, not on Windows."""

    def stop(*_: object) -> None:
        raise Hang

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, 1), (signal.ITIMER_REAL, signal.SIGALRM, WAITED))
    before = [signal.signal(number, stop) for _, number, _ in timers]
    for timer, _, times in timers:
        signal.setitimer(timer, seconds * times)
    try:
        yield
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)
        for (_, number, _), handler in zip(timers, before, strict=True):
            signal.signal(number, handler)


def file_of(reader: Reader, root: Path) -> Path:
    """The file that the reader's damage goes to."""
    return root / reader.file if reader.file else min(root.glob("alfworld/*/*/*/*/game.tw-pddl"))


def try_reader(reader: Reader, root: Path, count: int, seed: int = 0) -> Tally:
    """Read ``count`` damaged copies of the reader's file in ``root``; the good file is put back."""
    path = file_of(reader, root)
    good = path.read_bytes()
    others = [p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p != path][:20]
    before = {p: p.read_bytes() for p in path.parent.iterdir() if p.is_file()}
    expected = repr(reader.read(root))
    tally = Tally(reader.name)
    try:
        for number in range(count):
            random = Random(f"{seed} {reader.name} {number}")
            data = damaged(good, reader.kind, random, others)
            tally.files += 1
            if data == good:
                tally.unchanged += 1
                continue
            _restore(before)
            path.write_bytes(data)
            _try_once(reader, root, path, expected, tally, f"damage {number}")
    finally:
        _restore(before)
    return tally


def _restore(before: dict[Path, bytes]) -> None:
    """Put back what a damage or a reader, which may rewrite its file, has changed."""
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def _try_once(reader: Reader, root: Path, path: Path, expected: str, tally: Tally, label: str) -> None:
    data = path.read_bytes()
    try:
        with limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = repr(reader.read(root))
    except ReproError as error:
        text = str(error)
        if path.name in text or str(path.parent) in text:
            tally.refused += 1
        else:
            tally.fault("unnamed", f"{label}: {type(error).__name__}: {text[:300]}")
    except Hang:
        tally.fault("hangs", label)
    except Exception:
        tally.fault("tracebacks", f"{label}: {traceback.format_exc(limit=-3)[-700:]}")
    else:
        tally.read += 1
        if found != expected and (
            reader.sealed(data) or (reader.kind.endswith(".gz") and _broken_gzip(data))
        ):
            notes = reader.name == "viewer" and path.name in found  # it shows the rest, with a note
            if not notes:
                tally.fault("silent", f"{label}: {found[:200]}")


def _broken_gzip(data: bytes) -> bool:
    """Whether a gzip file is empty, cut off or damaged, or unpacks to more than any reader here takes."""
    left = UNPACKED
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:  # in pieces: it may be a bomb
            while left > 0 and (piece := file.read(1 << 20)):
                left -= len(piece)
    except (OSError, EOFError, zlib.error):
        return True
    return not data or left <= 0
