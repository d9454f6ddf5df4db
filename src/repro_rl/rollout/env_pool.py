"""Environments of one kind, built on demand and used again."""

from __future__ import annotations

from typing import Any

from repro_rl.envs.base import TextEnv, make


class EnvPool:
    """Environments of one kind; an episode under way has one of its own."""

    def __init__(self, name: str, settings: dict[str, Any] | None = None):
        self.name, self.settings = name, dict(settings or {})
        self._envs: list[TextEnv] = []

    def take(self, count: int) -> list[TextEnv]:
        """The first ``count`` environments; more are built where there are fewer."""
        while len(self._envs) < count:
            self._envs.append(make(self.name, **self.settings))
        return self._envs[:count]

    @property
    def first(self) -> TextEnv:
        """One environment, for panels, instructions and replays; never while episodes are under way."""
        return self.take(1)[0]
