"""One HTTP exchange: the bytes of an answer, or one of the errors of ``refusals``."""

from __future__ import annotations

import functools
import math
import os
import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import httpx2

from repro_rl.errors import ConfigError
from repro_rl.policy.transport.error_body import one_line, read_error
from repro_rl.policy.transport.refusals import PassingError, RefusedAll, refusal
from repro_rl.policy.transport.waits import asked_wait, wait_in_words

CONNECT = 10.0  # seconds, at most, until there is a connection
HIDDEN = "[key]"  # stands for the key in texts of a server
LARGEST = 32 << 20  # bytes of an answer; more is not an answer


@dataclass(slots=True, frozen=True)
class ApiKey:
    """The key that a server wants; it is sent in a header, and shown and written nowhere."""

    value: str = field(default="", repr=False)  # "": none is sent

    def hide(self, text: str | Exception) -> str:
        """``text`` of a server, which may repeat the key, without it."""
        return str(text).replace(self.value, HIDDEN) if self.value else str(text)


def read_key(name: str | None, setting: str) -> ApiKey:
    """The key in the environment variable ``name``; none for no name.

    Raises ConfigError, naming ``setting``, where it is not set or cannot be sent.
    """
    key = (os.environ.get(name) or "").strip() if name else ""
    if name and not key:
        raise ConfigError(f"The environment variable {name} ({setting}) is not set; put the key there.")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"The key in {name} ({setting}) holds characters that no HTTP header can.")
    return ApiKey(key)


def open_client(key: ApiKey, timeout: float, concurrency: int) -> httpx2.Client:
    """A client that sends ``key``, if there is one, with every request."""
    return httpx2.Client(
        headers={"Authorization": f"Bearer {key.value}"} if key.value else {},
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


def fetch(client: httpx2.Client, url: str, body: Mapping[str, Any] | None, timeout: float) -> bytes:
    """POST ``body``, or GET when it is None. ``timeout``: seconds for the whole call, however bytes drip in.

    A server that sends nothing more is waited for until the next whole second after it.

    Raises PassingError, RefusedPrompt and RefusedAll; their messages hold what the server answered,
    never the request's headers.
    """
    end = time.monotonic() + timeout
    left = _TimeLeft(end)
    waits = {**client.timeout.as_dict(), "read": left, "write": left}
    try:
        method, content = ("GET", None) if body is None else ("POST", dict(body))
        with client.stream(method, url, json=content, extensions={"timeout": waits}) as response:
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


class _TimeLeft:
    """The time-out of a socket's next read or write: the seconds until ``end``, rounded up.

    A number would be the time-out of each of them, so that headers could come byte by byte for hours. A
    socket takes whatever has an ``__index__`` and asks it anew every time.
    """

    def __init__(self, end: float):
        self.end = end

    def __index__(self) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return math.ceil(left)


def _refuse(status: int, data: bytes, headers: Mapping[str, str]) -> NoReturn:
    body = read_error(data)
    if 300 <= status < 400:
        location = one_line(headers.get("location") or "(no address)")
        raise RefusedAll(f"status {status}: the address has moved to {location}")
    error = refusal(status, body, asked_wait(headers))
    if isinstance(error, PassingError) and error.after is None:
        error.after = wait_in_words(body.message)
    raise error
