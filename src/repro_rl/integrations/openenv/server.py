"""An OpenEnv server of one environment: many sessions in one process, which share its data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openenv.core.env_server.http_server import create_app as openenv_app

from repro_rl.errors import ReproError
from repro_rl.integrations.openenv.environment import TextEnvironment
from repro_rl.integrations.openenv.models import TextAction, TextObservation, TextState

SESSIONS = 256  # at the same time; one more is refused


def create_app(
    env: str,
    settings: Mapping[str, Any] | None = None,
    *,
    split: str = "train",
    sessions: int = SESSIONS,
) -> FastAPI:
    """The server of ``env``, with its ``settings``; ``split``: of episodes whose reset names none.

    Data and panels are read before it returns, so no session waits for them. Over plain HTTP, what we refuse
    is a status 400 with the reason; over the session's socket OpenEnv sends the reason as an error message.
    Raises UnknownNameError, ConfigError, TaskError and DataError, so that a server that starts can play.
    """
    factory = partial(TextEnvironment, env, settings, split)
    first = factory()
    first.reset(seed=0)
    first.list_splits()  # reads the panels
    first.close()
    app = openenv_app(
        factory,
        TextAction,
        TextObservation,
        env_name=env,
        max_concurrent_envs=sessions,
        state_cls=TextState,
    )

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=400)

    app.add_exception_handler(ReproError, refuse)
    return app
