"""Environments of one kind, built on demand and used again."""

from __future__ import annotations

import warnings
from typing import Any

from repro_rl.envs.base import TextEnv, description_of, make, own_code, panel_of
from repro_rl.envs.panel import TaskPanel


class EnvPool:
    """Environments of one kind; an episode under way has one of its own. Whoever made the pool closes it."""

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

    def panel(self, split: str) -> TaskPanel:
        """The fixed tasks of ``split``. Raises what ``panel_of`` raises."""
        return panel_of(self.first, split)

    def describe(self) -> str:
        """One line on the data behind the tasks. Raises what ``description_of`` raises."""
        return description_of(self.first)

    def task_type(self, task_id: str) -> str | None:
        """The type of a task; None: the tasks have no types. Raises ConfigError where the code fails."""
        with own_code(self.first, f"task_type({task_id!r})"):
            return self.first.task_type(task_id)

    def vocabulary(self) -> set[str]:
        """The words of compact texts; empty: not known. Raises ConfigError where the code fails."""
        with own_code(self.first, "vocabulary()"):
            return set(self.first.vocabulary())

    def close(self) -> None:
        """Close the environments; the pool can be used again, with new ones.

        One that fails in it is a warning: what was played with it stands.
        """
        envs, self._envs = self._envs, []
        for env in envs:
            try:
                env.close()
            except Exception as error:
                warnings.warn(f"Closing an environment {self.name!r} failed: {error!r}", stacklevel=2)
