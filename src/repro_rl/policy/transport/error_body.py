"""What the body of an error says, whatever form its server gives it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from repro_rl.policy.transport.waits import duration

LONGEST = 2_000  # characters of a server's words that are kept
LONGEST_PAGE = 300  # of a web page
DEEPEST = 8  # levels of a body that are searched

CODES = {
    *("code", "type", "status", "reason", "reasons", "name", "error_type", "error_code"),
    *("err_code", "status_code", "limit_source", "provider_error_code"),
}
MESSAGES = {
    *("message", "msg", "detail", "error", "raw", "error_msg", "err_msg", "error_message"),
    *("status_msg", "error_description", "title"),
}
WAITS = {"retry_after": 1.0, "retry_after_seconds": 1.0, "retryDelay": 1.0, "retry_after_ms": 1e-3}
# Parts that repeat the request, or are no error.
SKIPPED = {"input", "ctx", "loc", "headers", "user_id", "failed_generation", "flagged_input", "usage"}


@dataclass(slots=True)
class ErrorBody:
    """An error in a server's words."""

    codes: list[str] = field(default_factory=list)  # codes, types and reasons, inner ones included
    messages: list[str] = field(default_factory=list)  # sentences, the outer ones first
    after: float | None = None  # seconds to wait before a repetition, where the body says so
    flagged: bool = False  # the provider says that its moderation flagged this input

    @property
    def status(self) -> int | None:
        """The HTTP status that the body names; None for none."""
        numbers = [int(code) for code in self.codes if re.fullmatch("[45][0-9][0-9]", code)]
        return numbers[0] if numbers else None

    @property
    def message(self) -> str:
        """All sentences on one line, without any control characters."""
        words = "; ".join(self.messages) or ", ".join(self.codes)
        return one_line(words) or "(the server gave no reason)"

    @property
    def words(self) -> str:
        """Codes and sentences in lower case, for searching."""
        return " ".join((*self.codes, *self.messages)).lower()


def read_error(data: bytes) -> ErrorBody:
    """The error in ``data``: JSON of any shape, a web page, or plain text."""
    body = ErrorBody()
    text = data.decode(errors="replace").strip("\ufeff \r\n\t")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        if text:
            body.messages.append(page_text(text) if looks_like_page(text) else text)
    else:
        _search(content, body, 0)
        if not (body.messages or body.codes):
            body.messages.append(text)
    return body


def error_of(content: Any) -> ErrorBody:
    """The error in parsed JSON."""
    body = ErrorBody()
    _search(content, body, 0)
    return body


def one_line(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, without control characters; where it is cut, it says so."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= longest else f"{line[:longest]} ({len(line) - longest} more characters)"


def looks_like_page(text: str) -> bool:
    """Whether this is HTML or XML rather than text."""
    start = text[:2_000].lower()
    return start.startswith("<") or "<html" in start


def page_text(text: str) -> str:
    """The readable text of a web page."""
    bare = re.sub(r"(?is)<(script|style|svg)\b.*?</\1\s*>", " ", text)
    bare = html.unescape(re.sub(r"(?s)<[^>]*>", " ", bare))
    return f"a web page: {one_line(bare, LONGEST_PAGE) or '(empty)'}"


def _search(content: Any, body: ErrorBody, level: int) -> None:
    """Collect codes and sentences of ``content``, of its outer levels first."""
    if level > DEEPEST:
        return
    if isinstance(content, str):
        _add_message(content, body, level)
    elif isinstance(content, list):
        for item in content[:20]:
            _search(item, body, level + 1)
    elif isinstance(content, dict):
        for name, value in content.items():
            if name in CODES:
                body.codes.extend(_scalars(value))
            if name in MESSAGES and isinstance(value, str):
                _add_message(value, body, level)
            if name in WAITS and body.after is None:
                body.after = _seconds(value, WAITS[name])
            body.flagged |= name == "flagged_input" or (name == "reasons" and bool(value))
        for name, value in content.items():
            if name not in SKIPPED and isinstance(value, dict | list):
                _search(value, body, level + 1)


def _add_message(text: str, body: ErrorBody, level: int) -> None:
    """Gateways put the whole answer of the server behind them into a text."""
    if text.lstrip().startswith(("{", "[")):
        try:
            inner = json.loads(text)
        except (ValueError, RecursionError):
            pass
        else:
            if isinstance(inner, dict | list):
                return _search(inner, body, level + 1)
    text = page_text(text) if looks_like_page(text) else text.strip()
    if text and not any(text in message for message in body.messages):
        body.messages.append(text)


def _scalars(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str | int) and not isinstance(item, bool) and item != "":
            yield str(item)


def _seconds(value: Any, unit: float) -> float | None:
    """``value`` as seconds: a number in ``unit``, or a duration such as "30s"."""
    written = duration(value.strip().lower()) if isinstance(value, str) else None
    if written is not None:
        return written
    try:
        number = float(value) * unit
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < float("inf") else None
