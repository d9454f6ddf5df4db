"""The local server: static files, the list and one episode. It only reads, and serves this machine alone.

Pages of other sites must not reach it. The Host header has to name this machine, which stops DNS rebinding.
Cross-site requests are refused, and answers carry a strict Content-Security-Policy. URL paths are looked up
in a fixed table and never become file names.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from repro_rl.errors import ConfigError, DataError
from repro_rl.report.load import Json
from repro_rl.report.pick import json_for_script
from repro_rl.report.view.library import Library
from repro_rl.report.view.pages import MAX_TEXT, choices, episode_page, list_page
from repro_rl.report.view.query import Search, parse_query, whole

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")  # a tunnel may come in under another port
SECONDS = 1.5  # of indexing or searching in one answer
TEMPLATES = Path(__file__).parents[1] / "templates"
FILES = {
    "/": ("view.html", "text/html"),
    "/report.css": ("report.css", "text/css"),
    "/view.css": ("view.css", "text/css"),
    "/episode.js": ("episode.js", "text/javascript"),
    "/view.js": ("view.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    """Serves ``runs`` on 127.0.0.1. ``serve_forever`` runs it, ``server_close`` ends it."""

    daemon_threads = True

    def __init__(self, runs: Sequence[Path], port: int = 0) -> None:
        self.library = Library(runs)
        self.search = Search()
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the page, with its port."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Without the look-up of a host name, which the parent does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closed the connection is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def make_server(runs: Sequence[Path], port: int = 0) -> ViewServer:
    """A bound server; port 0 takes a free one. Raises DataError for a folder that is no run, ConfigError
    for a port that cannot be used."""
    try:
        return ViewServer(runs, port)
    except OSError as error:
        raise ConfigError(
            f"Port {port} cannot be used ({error.strerror}); take another, or none for a free one."
        ) from error


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    server_version = "repro-rl"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0].lower()
        try:
            url = urlsplit(self.path)
            asked_by = self.headers.get("Sec-Fetch-Site", "none")
            # Any site may link to the page; everything else only the page itself may request.
            if host not in NAMES or (asked_by not in ("none", "same-origin") and url.path != "/"):
                self._send(HTTPStatus.FORBIDDEN, "Only pages of this server on this machine may ask.")
                return
            if url.path in FILES:
                name, kind = FILES[url.path]
                self._send(HTTPStatus.OK, (TEMPLATES / name).read_text(encoding="utf-8"), kind)
            elif url.path in self._answers:
                fields = dict(parse_qsl(url.query, keep_blank_values=True, max_num_fields=40))
                self._json(HTTPStatus.OK, self._answers[url.path](self.server, fields))
            else:
                self._send(HTTPStatus.NOT_FOUND, "There is no such page.")
        except DataError as error:
            self._json(HTTPStatus.NOT_FOUND, {"error": str(error)})
        except ValueError as error:  # ConfigError is one
            self._json(HTTPStatus.BAD_REQUEST, {"error": str(error)})

    def _refuse(self) -> None:
        self.close_connection = True
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "This server only reads: use GET.", extra={"Allow": "GET"})

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def log_message(self, format: str, *args: Any) -> None:
        """No log: the terminal belongs to the command."""

    def _json(self, status: HTTPStatus, value: Json) -> None:
        self._send(status, str(json_for_script(value, MAX_TEXT * 2)), "application/json")

    def _send(
        self, status: HTTPStatus, text: str, kind: str = "text/plain", extra: Mapping[str, str] | None = None
    ) -> None:
        data = text.encode()
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(data))}
        for name, value in {**headers, **HEADERS, **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    _answers: ClassVar[dict[str, Callable[[ViewServer, dict[str, str]], Json]]] = {
        "/api/list": lambda server, fields: _list(server, fields),
        "/api/choices": lambda server, _: choices(server.library),
        "/api/episode": lambda server, fields: episode_page(server.library, fields.get("key", "")),
    }


def _list(server: ViewServer, fields: dict[str, str]) -> Json:
    offset = whole("offset", fields.pop("offset", "0"))
    around = fields.pop("around", "")
    return list_page(server.library, server.search, parse_query(fields), offset, around, SECONDS)
