"""A chat-completions server on 127.0.0.1 for the tests: it can answer sensibly, and fail in every way."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-Very-Secret-0123456789"


@dataclass
class Reply:
    """What goes over the wire. ``cut``: promise all of the data but send only so many bytes of it."""

    status: int = 200
    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    hang: bool = False


def completion(text: Any, finish: str = "stop", usage: Any = (10, 5), **message: Any) -> Reply:
    """A well-formed chat completion. ``usage``: prompt and completion tokens."""
    content: dict[str, Any] = {
        "id": "x",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
    }
    if usage is not None:
        content["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Reply(data=json.dumps(content).encode())


def error(status: int, message: str = "no", code: str = "", **headers: str) -> Reply:
    data = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Reply(status, data, {name.replace("_", "-"): value for name, value in headers.items()})


def sensible(body: dict[str, Any]) -> str:
    """Judges when asked for values, else takes one of the possible actions, the same for the same request."""
    prompt = body["messages"][0]["content"]
    count = re.search(r"Now give the (\d+) values", prompt)
    if count:
        total = int(count[1])
        lines = "\n".join(f"step {t}: {90 * t // total}" for t in range(1, total + 1))
        if "; the last is 100" in prompt:
            lines = re.sub(r"\d+$", "100", lines)
        return f"<progress>\n{lines}\n</progress>"
    actions = re.findall(r"^- (.+)$", prompt.split("Possible actions:")[1], re.MULTILINE)
    pick = int(hashlib.sha256(json.dumps(body).encode()).hexdigest(), 16) % len(actions)
    return f"<progress>20</progress><action>{actions[pick]}</action>"


class Server:
    """``reply(body, number)`` decides; ``number`` counts the requests of this content from 1."""

    def __init__(self) -> None:
        self.reply: Callable[[dict[str, Any], int], Reply] = lambda body, number: completion(sensible(body))
        # Takes the place of ``reply`` when set: (path, body or None for a GET, number) -> what to answer.
        self.route: Callable[[str, dict[str, Any] | None, int], Reply] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.counts: Counter[str] = Counter()
        self.busy = self.most_busy = 0
        self.release = threading.Event()  # lets hanging requests go
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def do_GET(self) -> None:
                outer.serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:  # clients that are killed are part of the test
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        data = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        body = json.loads(data) if data else {}
        with self._lock:
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            self.counts[data.decode()] += 1
            number = self.counts[data.decode()]
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        try:
            if self.route is not None:
                reply = self.route(request.path, body if data else None, number)
            else:
                reply = self.reply(body, number)
        finally:
            with self._lock:
                self.busy -= 1
        if reply.hang:
            self.release.wait(20)
        if reply.reset:
            linger = struct.pack("ii", 1, 0)  # closing then sends a reset
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.close_connection = True
            request.connection.close()
            return
        request.send_response(reply.status)
        for name, value in reply.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(reply.data)))
        request.end_headers()
        request.wfile.write(reply.data[: reply.cut])
        request.close_connection = reply.cut is not None

    @property
    def calls(self) -> int:
        return len(self.bodies)

    def forget(self) -> None:
        self.bodies.clear()
        self.headers.clear()
        self.counts.clear()

    def close(self) -> None:
        self.release.set()
        self.http.shutdown()
        self.http.server_close()
