"""One HTTP exchange: an answer, an error that may pass, a refusal of this prompt, or a refusal of all."""

from __future__ import annotations

import functools
import json
import os
import random
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from repro_rl.errors import ConfigError
from repro_rl.policy.http.answers import Answer

LARGEST = 32 << 20  # bytes of an answer; more is not an answer
PASSING = {408, 409, 425, 429}  # statuses worth a repetition, with every 5xx
# Refusals that concern one prompt only, by the error's code or words in its message.
OF_ONE_PROMPT = ("context_length", "context length", "content_filter", "content_policy", "too long")
NO_MONEY = ("insufficient_quota", "billing")  # a 429 that no waiting changes


class PassingError(Exception):
    """May succeed when repeated.

    ``after``: seconds that the server asks to wait. ``reached``: there is a server at that address.
    """

    def __init__(self, reason: str, after: float | None = None, reached: bool = True):
        super().__init__(reason)
        self.after, self.reached = after, reached


class RefusedPrompt(Exception):
    """The server will never answer this one prompt."""


class RefusedAll(Exception):
    """The server will answer nothing: key, model, address or account are wrong."""


def read_key(name: str | None, setting: str) -> str:
    """The key in the environment variable ``name``; "" for no name. Raises ConfigError naming ``setting``."""
    key = (os.environ.get(name) or "").strip() if name else ""
    if name and not key:
        raise ConfigError(f"The environment variable {name} ({setting}) is not set; put the key there.")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"The key in {name} ({setting}) holds characters that no HTTP header can.")
    return key


def open_client(key: str, timeout: float, concurrency: int) -> httpx2.Client:
    """A client that sends ``key``, if there is one, with every request."""
    return httpx2.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(timeout, connect=min(timeout, 30.0), pool=None),
        verify=_tls(),
        limits=httpx2.Limits(max_connections=concurrency),
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    """Loading the certificates takes longer than all else here; once a process is enough."""
    return httpx2.create_ssl_context()


def pause(attempt: int, backoff: float, longest: float, after: float | None) -> float:
    """Seconds before repetition ``attempt`` (from 0), at least ``after``.

    Exponential, with jitter so that parallel calls do not come back as one.
    """
    return max(min(longest, backoff * 2.0**attempt) * random.uniform(0.5, 1.5), after or 0.0)


def exchange(client: httpx2.Client, url: str, body: Mapping[str, Any], timeout: float) -> Answer:
    """POST ``body`` and read the answer, a chat completion. Raises as ``fetch`` and ``read_answer`` do."""
    return read_answer(fetch(client, url, body, timeout), body)


def fetch(client: httpx2.Client, url: str, body: Mapping[str, Any] | None, timeout: float) -> bytes:
    """POST ``body``, or GET when it is None. ``timeout`` is for the whole call, however slowly bytes drip in.

    Raises the three errors above; their messages hold what the server answered, never the request's headers.
    """
    end = time.monotonic() + timeout
    try:
        method, content = ("GET", None) if body is None else ("POST", dict(body))
        with client.stream(method, url, json=content) as response:
            parts, size = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > LARGEST:
                    raise PassingError(f"the answer is larger than {LARGEST} bytes")
                if time.monotonic() > end:
                    raise PassingError(f"no complete answer within {timeout:g} s")
            data = b"".join(parts)
            status, headers = response.status_code, response.headers
    except httpx2.TimeoutException as error:
        connecting = isinstance(error, httpx2.ConnectTimeout)
        raise PassingError(f"no answer within {timeout:g} s", reached=not connecting) from error
    except httpx2.UnsupportedProtocol as error:
        raise RefusedAll("the address must begin with http:// or https://") from error
    except (httpx2.RequestError, httpx2.StreamError) as error:
        connecting = isinstance(error, httpx2.ConnectError)
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise PassingError(reason, reached=not connecting) from error
    except httpx2.InvalidURL as error:
        raise RefusedAll(f"the address cannot be used: {error}") from error
    if status != 200:
        _refuse(status, data, headers)
    return data


def _refuse(status: int, data: bytes, headers: Mapping[str, str]) -> None:
    code, message = _server_error(data)
    reason = f"status {status}: {message}"
    error = f"{code} {message}".lower()
    if status == 429 and any(word in code.lower() for word in NO_MONEY):
        raise RefusedAll(reason)
    if status in PASSING or status >= 500:
        raise PassingError(reason, retry_after(headers.get("retry-after")))
    if status == 413 or (status in (400, 422) and any(words in error for words in OF_ONE_PROMPT)):
        raise RefusedPrompt(reason)
    raise RefusedAll(reason)


def _server_error(data: bytes) -> tuple[str, str]:
    """Code and message of an error body, whatever form it has; one line, cut to a readable length."""
    text = data.decode(errors="replace")
    code: Any = ""
    try:
        content = json.loads(text)
        error = content.get("error", content) if isinstance(content, dict) else content
        if isinstance(error, dict):
            code, text = error.get("code") or error.get("type") or "", str(error.get("message", error))
        else:
            text = str(error)
    except (ValueError, RecursionError):
        pass
    return str(code), " ".join(text.split())[:500] or "(the server gave no reason)"


def retry_after(value: str | None) -> float | None:
    """Seconds asked for by a Retry-After header, given in seconds or as a date; None when unreadable."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None


def read_answer(data: bytes, body: Mapping[str, Any]) -> Answer:
    """The answer in a chat completion. Raises PassingError naming what is wrong with its shape.

    No content is an empty text: a model may have spent its tokens on reasoning, or called a tool.
    """
    try:
        body_json = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PassingError(f"the answer is not JSON ({error})") from error
    if isinstance(body_json, dict) and body_json.get("error"):
        raise PassingError(f"the answer holds an error: {_server_error(data)[1]}")
    try:
        choice = body_json["choices"][0]
        message = choice["message"]
        content = message.get("content")
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        finish = str(choice.get("finish_reason") or "stop")
        if isinstance(content, list):  # parts, as some servers give them
            content = "".join(part["text"] for part in content if part.get("type", "text") == "text")
        if content is not None and not isinstance(content, str):
            raise TypeError("content is not a text")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        shape = f"{type(error).__name__} {error}"
        raise PassingError(f"the answer has not the shape of a chat completion ({shape})") from error
    # JSON may hold half a character, which no file can.
    text = (content or "").encode(errors="replace").decode()
    usage = body_json.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("completion_tokens_details")
    thought = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    prompt_characters = sum(len(str(part.get("content"))) for part in body.get("messages", ()))
    return Answer(
        text=text,
        finish=finish,
        prompt_tokens=_estimate(prompt_characters) if prompt is None else prompt,
        completion_tokens=_estimate(len(text) + len(str(reasoning))) if completion is None else completion,
        reasoning_tokens=(_estimate(len(str(reasoning))) if reasoning else 0) if thought is None else thought,
        estimated=prompt is None or completion is None,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _estimate(characters: int) -> int:
    return -(-characters // 4)
