"""One call to a server, and its time limit."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from repro_rl.policy.transport import ApiKey, PassingError, fetch, open_client


@pytest.mark.parametrize("dripping", ["headers", "body"])
def test_the_time_limit_is_of_the_whole_call(dripping):
    """The server sends a byte every tenth of a second, for 20 s."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip() -> None:
        connection, _ = listening.accept()
        connection.recv(1 << 16)
        begin = b"HTTP/1.1 200 OK\r\nX-Slow: "
        if dripping == "body":
            begin += b"1\r\nContent-Length: 999\r\n\r\n"
        with contextlib.suppress(OSError):
            connection.sendall(begin)
            for _ in range(200):
                connection.sendall(b"a")
                if ended.wait(0.1):
                    break
        connection.close()

    server = threading.Thread(target=drip, daemon=True)
    server.start()
    begin = time.monotonic()
    try:
        with open_client(ApiKey(), 1.0, 1) as client, pytest.raises(PassingError, match=r"answer within 1 s"):
            fetch(client, f"http://127.0.0.1:{listening.getsockname()[1]}/", {}, 1.0)
        assert 1.0 <= time.monotonic() - begin < 15
    finally:
        ended.set()
        server.join(10)
        listening.close()
