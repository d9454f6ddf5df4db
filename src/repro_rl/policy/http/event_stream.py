"""Answers that come piece by piece: server-sent events, or a JSON object a line, put together again.

Source: HTML standard, "Server-sent events", section 9.2.6 (lines, comments, ``data`` fields).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from repro_rl.policy.transport.refusals import PassingError

START = re.compile(rb"(data|event|id|retry)\s*:|:")
DONE = "[DONE]"
TEXTS = ("content", "reasoning_content", "reasoning", "thinking", "refusal")  # parts that are appended


def is_stream(data: bytes) -> bool:
    """Whether ``data`` is an event stream; servers name any content type."""
    return START.match(data.lstrip(b"\xef\xbb\xbf \t\r\n")) is not None


def read_stream(data: bytes) -> dict[str, Any]:
    """The chat completion that the events in ``data`` add up to, or the body of the error among them.

    Raises PassingError when an event is not JSON, or the stream ends before its answer does.
    """
    chunks, ended = [], False
    for text in events(data):
        if text.strip() == DONE:
            ended = True
            break
        try:
            chunks.append(json.loads(text))
        except (ValueError, RecursionError) as error:
            reason = f"an event of the stream is not JSON ({error})"
            raise PassingError(reason, cause="unreadable") from error
    return joined(chunks, ended)


def read_lines(data: bytes) -> dict[str, Any] | None:
    """The chat completion in lines of JSON objects; None when they are something else."""
    try:
        chunks = [json.loads(line) for line in data.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    if len(chunks) < 2 or not all(isinstance(chunk, dict) for chunk in chunks):
        return None
    return joined(chunks, ended=False)


def events(data: bytes) -> Iterator[str]:
    """The data of each event. The last one counts although no empty line follows it."""
    lines: list[str] = []
    text = data.decode(errors="replace").lstrip("\ufeff \t\r\n")
    for line in (*re.split("\r\n|\n|\r", text), ""):
        if not line and lines:
            yield "\n".join(lines)
            lines = []
        name, _, value = line.partition(":")
        if name.strip() == "data":
            value = value.removeprefix(" ")
            # Some servers leave out the empty line: each of their lines is an event.
            if lines and _whole("\n".join(lines)):
                yield "\n".join(lines)
                lines = []
            lines.append(value)


def _whole(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text.strip() == DONE
    return True


def joined(chunks: Sequence[Any], ended: bool) -> dict[str, Any]:
    """One chat completion out of its chunks. ``ended``: the server has said that nothing follows."""
    texts: dict[str, list[str]] = {name: [] for name in TEXTS}
    calls: list[Any] = []
    whole: dict[str, Any] = {}
    finish: Any = None
    usage: Any = None
    for chunk in chunks:
        if not isinstance(chunk, dict):
            continue
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if chunk.get("error") or (choice is None and _is_error(chunk)):
            return chunk
        usage = chunk.get("usage") or usage
        if not isinstance(choice, dict) or choice.get("index", 0) not in (0, None):
            continue
        if choice.get("error"):
            return {"choices": [choice]}
        finish = choice.get("finish_reason") or finish
        delta = choice.get("delta")
        if isinstance(choice.get("message"), dict) and not delta:
            whole = choice["message"]
        elif isinstance(delta, dict):
            for name in TEXTS:
                texts[name].extend(_pieces(delta.get(name)))
            calls.extend(delta["tool_calls"] if isinstance(delta.get("tool_calls"), list) else [])
    if finish is None and not (ended and (whole or any(texts.values()))):
        raise PassingError("the event stream ended before its answer did", cause="cut")
    message = whole or {name: "".join(parts) for name, parts in texts.items() if parts}
    if calls:
        message = {**message, "tool_calls": _joined_calls(calls)}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def _is_error(chunk: dict[str, Any]) -> bool:
    return chunk.get("type") == "error" or chunk.get("object") == "error" or "detail" in chunk


def _pieces(value: Any) -> Iterator[str]:
    """The texts of a delta: a text, or a list of parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _joined_calls(pieces: Sequence[Any]) -> list[dict[str, Any]]:
    """Tool calls out of their pieces: the first has the name, all have parts of the arguments."""
    calls: dict[Any, dict[str, Any]] = {}
    for piece in pieces:
        function = piece.get("function") if isinstance(piece, dict) else None
        if isinstance(function, dict):
            call = calls.setdefault(piece.get("index", 0), {"name": "", "arguments": ""})
            for name in call:
                call[name] += function[name] if isinstance(function.get(name), str) else ""
    return [{"function": call} for call in calls.values()]
