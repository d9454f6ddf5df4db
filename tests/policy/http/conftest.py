"""A chat-completions server, and clients whose waits are recorded."""

from __future__ import annotations

import pytest

from repro_rl.config import ApiSection
from repro_rl.policy.http import ChatClient
from support.api_server import KEY


@pytest.fixture
def make_client(server, tmp_path, monkeypatch):
    """Clients whose waits between repetitions are recorded, not made."""
    monkeypatch.setenv("TEST_API_KEY", KEY)
    clients = []

    def make(**more):
        settings = {"base_url": server.url, "model": "m", "key_env": "TEST_API_KEY", "retries": 3}
        settings |= {"cache": tmp_path / "cache", "backoff": 1.0, "give_up": 0} | more
        waits: list[float] = []
        client = ChatClient(ApiSection(**settings), wait=lambda seconds, stop: waits.append(seconds))
        client.waits = waits
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
