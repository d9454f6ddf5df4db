"""One HTTP exchange: an answer, or one of the errors of ``refusals``."""

from __future__ import annotations

import functools
import os
import random
import re
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx2

from repro_rl.errors import ConfigError
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.completion import read_answer
from repro_rl.policy.http.error_body import one_line, read_error
from repro_rl.policy.http.event_stream import is_stream
from repro_rl.policy.http.refusals import PassingError, RefusedAll, RefusedPrompt, refusal

__all__ = [
    "PassingError",
    "RefusedAll",
    "RefusedPrompt",
    "asked_wait",
    "exchange",
    "fetch",
    "open_client",
    "pause",
    "read_answer",
    "read_key",
    "retry_after",
]

CONNECT = 10.0  # seconds, at most, until there is a connection
LARGEST = 32 << 20  # bytes of an answer; more is not an answer
# "Please try again in 1m26.4s", "Please retry in 38.2s", "try again in 20 seconds"
AGAIN_IN = re.compile(r"(?:again|retry) in (?:(\d+)m(?:in)?(?:utes?)?)?\s*(?:(\d+(?:\.\d+)?)\s*(ms|s)\w*)?")


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
        timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT), pool=None),
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


def exchange(client: httpx2.Client, url: str, body: Mapping[str, Any], timeout: float) -> tuple[Answer, bool]:
    """POST ``body``: the answer, a chat completion, and whether it came as an event stream.

    Raises as ``fetch`` and ``read_answer`` do.
    """
    data = fetch(client, url, body, timeout)
    return read_answer(data, body), is_stream(data)


def fetch(client: httpx2.Client, url: str, body: Mapping[str, Any] | None, timeout: float) -> bytes:
    """POST ``body``, or GET when it is None. ``timeout`` is for the whole call, however slowly bytes drip in.

    Raises PassingError, RefusedPrompt and RefusedAll; their messages hold what the server answered,
    never the request's headers.
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
                    raise PassingError(f"the answer is larger than {LARGEST} bytes", cause="unreadable")
                if time.monotonic() > end:
                    raise PassingError(f"no complete answer within {timeout:g} s")
            data = b"".join(parts)
            status, headers = response.status_code, response.headers
    except httpx2.TimeoutException as error:
        connecting = isinstance(error, httpx2.ConnectTimeout)
        if connecting:
            raise PassingError(f"no connection within {min(timeout, CONNECT):g} s", reached=False) from error
        raise PassingError(f"no answer within {timeout:g} s") from error
    except httpx2.UnsupportedProtocol as error:
        raise RefusedAll("the address must begin with http:// or https://") from error
    except (httpx2.RequestError, httpx2.StreamError) as error:
        connecting = isinstance(error, httpx2.ConnectError)
        cut = isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError)
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        cause = "cut" if cut else "unavailable"
        raise PassingError(reason, reached=not connecting, cause=cause) from error
    except httpx2.InvalidURL as error:
        raise RefusedAll(f"the address cannot be used: {error}") from error
    if not 200 <= status < 300:
        _refuse(status, data, headers)
    return data


def _refuse(status: int, data: bytes, headers: Mapping[str, str]) -> NoReturn:
    body = read_error(data)
    if 300 <= status < 400:
        location = one_line(headers.get("location") or "(no address)")
        raise RefusedAll(f"status {status}: the address has moved to {location}")
    error = refusal(status, body, asked_wait(headers))
    if isinstance(error, PassingError) and error.after is None:
        error.after = _wait_in_words(body.message)
    raise error


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the headers of an answer ask to wait; None for none. Their names are in lower case."""
    try:
        milliseconds = float(headers.get("retry-after-ms") or "")
    except ValueError:
        return retry_after(headers.get("retry-after"))
    return max(0.0, milliseconds / 1000) if milliseconds < float("inf") else None


def _wait_in_words(message: str) -> float | None:
    """Seconds in a sentence such as "Please try again in 1m26.4s"; None for none."""
    found = AGAIN_IN.search(message.lower())
    if not found or not (found[1] or found[2]):
        return None
    seconds = float(found[2] or 0) * (1e-3 if found[3] == "ms" else 1)
    return 60 * float(found[1] or 0) + seconds


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
