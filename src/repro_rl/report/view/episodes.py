"""The summary of a recorded episode that stays in memory: what the filters and the list need.

Works on any JSON object: a field that is missing or of another type counts as not given.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from repro_rl.files import finite
from repro_rl.report.load import Json
from repro_rl.report.pick import clean
from repro_rl.study.series import Series, series_of

EpisodeOutcome = Literal["won", "lost", "error"]
ReflectionState = Literal["valid", "broken", "none"]
Extreme = tuple[int, int]  # (points, its step, from 1)

REFLECTION = "reflection: "  # before the names of a reflection's defects
_LONGEST_NAME = 300
_MISSING = 255  # a step without a value, in a packed series
_ASIN = re.compile(r"[A-Z0-9]{10}")
_GAME = re.compile(r"([a-z_]+)-")


@dataclass(slots=True)
class Episode:
    """One line of a trajectory file. Progress and gaps are points, 0..100."""

    line: int  # from 1
    offset: int  # of the line, in the unpacked file
    size: int  # bytes, unpacked
    task: str
    kind: str  # type of the task
    rollout: int | None
    outcome: EpisodeOutcome
    truncated: bool
    context_full: bool
    score: float | None
    length: int
    online: bytes  # [T], a packed series
    retrospective: bytes  # [T], a packed series
    truth: bytes  # [T], a packed series
    believed: Extreme | None  # highest progress claimed, online or in retrospect
    gap: Extreme | None  # largest distance of online from retrospective progress
    online_error: Extreme | None  # largest distance of online progress from the truth
    retrospective_error: Extreme | None
    reflection: ReflectionState
    invalid: int  # refused actions
    malformed: int  # steps with a defect of form
    defects: tuple[str, ...]  # names, those of the reflection with a prefix


def summarise(record: Json, line: int, offset: int, size: int) -> Episode:
    """The summary of a ``normalised`` record; fields of an unexpected type count as missing."""
    steps, reflection = record["steps"], record["reflection"]
    online, truth = series_of(record, "online"), series_of(record, "truth")
    retrospective = series_of(record, "retrospective")
    names = [name for step in steps for name in _names(step.get("defects"))]
    names += [REFLECTION + name for name in _names((reflection or {}).get("defects"))]
    claims = [(round(100 * value), t) for t, value in _given(online) + _given(retrospective)]
    rollout, score = record.get("rollout"), record.get("score")
    task = clean(record.get("task_id", "?"), _LONGEST_NAME)
    return Episode(
        line=line,
        offset=offset,
        size=size,
        task=sys.intern(task),
        kind=sys.intern(task_type(record, task)),
        rollout=rollout if isinstance(rollout, int) else None,
        outcome="error" if record.get("error") else "won" if record.get("won") else "lost",
        truncated=bool(record.get("truncated")),
        context_full=bool(record.get("context_full")),
        score=float(score) if finite(score) else None,
        length=len(steps),
        online=pack(online),
        retrospective=pack(retrospective),
        truth=pack(truth),
        believed=_largest(claims),
        gap=_distance(online, retrospective),
        online_error=_distance(online, truth),
        retrospective_error=_distance(retrospective, truth),
        reflection="none" if reflection is None else "valid" if _given(retrospective) else "broken",
        invalid=sum(not step.get("valid", True) for step in steps),
        malformed=sum(bool(step.get("defects")) for step in steps),
        defects=tuple(sys.intern(name) for name in dict.fromkeys(names)),
    )


def task_type(record: Json, task: str) -> str:
    """The record's ``task_type`` where it has one; otherwise the type is read from the task id.

    ALFWorld: the word before the first hyphen of the task folder. WebShop: the kind of goal. Elsewhere: the
    id without its last part (Sokoban: level set and split). "" when the id has one part.
    """
    recorded = record.get("task_type")
    if isinstance(recorded, str) and recorded:
        return clean(recorded, _LONGEST_NAME)
    parts = task.split("/")
    if len(parts) == 3 and (game := _GAME.match(parts[1])):
        return game[1]
    if len(parts) == 3 and _ASIN.fullmatch(parts[0]):
        return parts[1]
    return "/".join(parts[:-1])


def pack(series: Series) -> bytes:
    """Progress 0..1 as one byte a step, in whole points, clipped to 0..100."""
    return bytes(_MISSING if v is None else min(100, max(0, round(100 * v))) for v in series)


def unpack(packed: bytes) -> list[int | None]:
    """Points 0..100, None where nothing was given."""
    return [None if value == _MISSING else value for value in packed]


def last_value(packed: bytes) -> int | None:
    """The progress after the last step, in points."""
    return packed[-1] if packed and packed[-1] != _MISSING else None


def _given(series: Series) -> list[tuple[int, float]]:
    return [(t, value) for t, value in enumerate(series, 1) if value is not None]


def _distance(one: Series, other: Series) -> Extreme | None:
    pairs = enumerate(zip(one, other, strict=True), 1)
    return _largest([(round(100 * abs(a - b)), t) for t, (a, b) in pairs if a is not None and b is not None])


def _largest(values: Sequence[Extreme]) -> Extreme | None:
    """The largest; of several the earliest."""
    return max(values, key=lambda pair: (pair[0], -pair[1]), default=None)


def _names(value: Any) -> list[str]:
    return [clean(item, _LONGEST_NAME) for item in value] if isinstance(value, list) else []
