"""How long a server asks to wait: in the headers of its answer, or in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# "Please try again in 1m26.4s", "Please retry after 6 seconds"
ASKED = re.compile(r"\b(?:again|retry) (?:in|after) (?=\d)")
# "26.4s", "648ms", "2 minutes"; "m" is not the beginning of "ms", nor of a word that is no unit
PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:(?P<d>d(?:ays?)?)|(?P<h>h(?:(?:ou)?rs?)?)|(?P<m>m(?:in(?:ute)?s?)?)"
    r"|(?P<ms>ms|milli(?:second)?s?|msecs?)|(?P<s>s(?:ec(?:ond)?s?)?))(?![a-z])"
)
BETWEEN = re.compile(r"\s*,?\s*(?:and\s+)?")
SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the headers of an answer ask to wait; None for none. Their names are in lower case."""
    try:
        milliseconds = float(headers.get("retry-after-ms") or "")
    except ValueError:
        return retry_after(headers.get("retry-after"))
    return max(0.0, milliseconds / 1000) if milliseconds < float("inf") else None


def retry_after(value: str | None) -> float | None:
    """Seconds asked for by a Retry-After header; None when unreadable.

    It is a number of seconds or a date. Some servers write a duration such as "20s".
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        written = duration(value.strip().lower())
        if written is not None:
            return written
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None


def wait_in_words(message: str) -> float | None:
    """Seconds in a sentence such as "Please try again in 1m26.4s"; None for none."""
    words = message.lower()
    found = ASKED.search(words)
    return duration(words, found.end()) if found else None


def duration(words: str, start: int = 0) -> float | None:
    """Seconds of the duration that ``words``, in lower case, have at ``start``; None where there is none.

    It is a number with a unit, or several, as in "1h2m3s" and "1 minute and 5 seconds".
    """
    parts: list[float] = []
    part = PART.match(words, start)
    while part:
        unit = next(name for name in SECONDS if part[name])
        parts.append(float(part[1]) * SECONDS[unit])
        between = BETWEEN.match(words, part.end())
        part = PART.match(words, between.end() if between else part.end())
    total = sum(parts)
    return total if parts and total < float("inf") else None
