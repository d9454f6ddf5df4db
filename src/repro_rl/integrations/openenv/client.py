"""The client of an OpenEnv server of ours."""

from __future__ import annotations

from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult

from repro_rl.integrations.openenv.models import TextAction, TextObservation, TextState


class TextClient(EnvClient[TextAction, TextObservation, TextState]):
    """One session of a server: ``TextClient(base_url=...)`` for ``await``, its ``.sync()`` for plain calls.

    ``reset(split=, index=)`` or ``reset(task=)`` choose the task, ``step`` takes a TextAction or its text.
    """

    def _step_payload(self, action: TextAction | str) -> dict[str, Any]:
        return {"command": action if isinstance(action, str) else action.command}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[TextObservation]:
        reward, done = payload.get("reward"), bool(payload.get("done", False))
        observation = TextObservation(reward=reward, done=done, **payload["observation"])
        return StepResult(observation, reward, done, payload.get("metadata"))

    def _parse_state(self, payload: dict[str, Any]) -> TextState:
        return TextState(**payload)
