"""Which trajectories the page holds, and in what form."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from repro_rl.report.load import Json
from repro_rl.study.series import SERIES, Series, Which, series_of

LIMIT = 60
NEARLY_DONE = 0.8
TEXTS = ("observation", "feedback", "text", "action")  # of a step
MAX_TEXT = 6_000  # characters of one text on the page

# Control characters and the marks that reorder text: shown as symbols, so that they have no effect.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def choose_records(records: Sequence[Json], count: int, rng: random.Random) -> list[Json]:
    """Up to ``count`` records: failures believed done, largest gaps, then wins and losses alternately."""
    usable = [record for record in records if record["steps"]]
    if len(usable) <= count:
        return usable
    pool = rng.sample(usable, len(usable))  # the seed, not the file order, decides ties
    chosen: dict[int, Json] = {}

    def take(candidates: Sequence[Json], number: int) -> None:
        for record in candidates:
            if number <= 0 or len(chosen) >= count:
                return
            if id(record) not in chosen:
                chosen[id(record)] = record
                number -= 1

    take([record for record in pool if believed_done(record)], max(1, count // 4))
    take(sorted(pool, key=lambda record: -(gap(record) or 0.0)), max(1, count // 4))
    won = [record for record in pool if record.get("won")]
    lost = [record for record in pool if not record.get("won")]
    take([record for pair in zip(won, lost, strict=False) for record in pair], count)
    take(pool, count)
    return [record for record in usable if id(record) in chosen]


def believed_done(record: Json) -> bool:
    """A failure with a progress of at least 80 % at some step, online or retrospective."""
    if record.get("won"):
        return False
    both: tuple[Which, Which] = ("online", "retrospective")
    return any(
        value is not None and value >= NEARLY_DONE for which in both for value in series_of(record, which)
    )


def gap(record: Json) -> float | None:
    """The largest distance between online and retrospective progress, 0..1; None where they share no step."""
    pairs = zip(series_of(record, "online"), series_of(record, "retrospective"), strict=True)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=None)


def embedded(record: Json, run: str, source: str, limit: int = MAX_TEXT) -> Json:
    """The record as the page's script reads it; each text has at most ``limit`` characters."""
    retrospective = series_of(record, "retrospective")
    reflection = record.get("reflection")
    distance = gap(record)
    return {
        "run": run,
        "source": source,
        "task": str(record.get("task_id", "?")),
        "rollout": record.get("rollout"),
        "goal": clean(record.get("goal"), limit),
        "won": bool(record.get("won")),
        "score": record.get("score"),
        "truncated": bool(record.get("truncated")),
        "context_full": bool(record.get("context_full")),
        "error": clean(record.get("error"), limit),
        "return": record.get("return"),
        "final": clean(record.get("final_observation"), limit),
        "believed": believed_done(record),
        "gap": None if distance is None else round(100 * distance),
        **{which: _percent(series_of(record, which)) for which in SERIES},
        "steps": [
            {
                **{name: clean(step.get(name), limit) for name in TEXTS},
                **{name: step.get(name) for name in ("tokens", "advantage", "entropy")},
                "valid": bool(step.get("valid")),
                "finished": bool(step.get("finished", True)),
                "defects": _names(step.get("defects")),
                "terms": _terms(step.get("terms")),
                "reward": step.get("env_reward"),
            }
            for step in record["steps"]
        ],
        "reflection": reflection
        and {
            "text": clean(reflection.get("text"), limit),
            "usable": any(value is not None for value in retrospective),
            "defects": _names(reflection.get("defects")),
            "terms": _terms(reflection.get("terms")),
            "advantage": reflection.get("advantage"),
        },
    }


def clean(value: Any, limit: int = MAX_TEXT) -> str:
    """Text with invisible characters shown as symbols, cut after ``limit`` characters."""
    text = "" if value is None else str(value)
    if len(text) > limit:
        text = f"{text[:limit]}\n… ({len(text) - limit} more characters)"
    return visible(text)


def visible(text: str) -> str:
    """``text`` with control characters and direction marks shown as symbols."""
    return _INVISIBLE.sub(_symbol, text.replace("\r\n", "\n"))


def json_for_script(value: Any, limit: int = MAX_TEXT) -> Markup:
    """JSON that is safe inside ``<script>``: ASCII only, no ``<``, ``>`` or ``&``; nan becomes null."""
    text = json.dumps(_strict(value, limit), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # ASCII escapes cover U+2028 and U+2029 as well; these three characters could begin or end markup.
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # control pictures
    return "␡" if code == 0x7F else f"[U+{code:04X}]"


def _strict(value: Any, limit: int) -> Any:
    if isinstance(value, dict):
        return {clean(key): _strict(item, limit) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item, limit) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, str):
        return clean(value, limit)
    return value


def _terms(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _names(value: Any) -> list[str]:
    return [clean(item) for item in value] if isinstance(value, list) else []


def _percent(values: Series) -> list[int | None]:
    return [None if value is None else round(100 * value) for value in values]
