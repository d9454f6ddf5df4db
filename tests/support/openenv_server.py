"""An OpenEnv server of ours in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def serving(env: str, settings: dict[str, Any] | None = None, **options: Any) -> Iterator[str]:
    """The address of a server of ``env``; it stops at the end."""
    import uvicorn

    from repro_rl.integrations.openenv import create_app

    app = create_app(env, settings, **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
