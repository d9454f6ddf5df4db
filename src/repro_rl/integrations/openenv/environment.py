"""One session of an OpenEnv server of ours, with the tasks of our panels."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import EnvironmentMetadata

import repro_rl
from repro_rl.envs.base import panel_of, read_settings
from repro_rl.errors import TaskError
from repro_rl.integrations.adapters import OPENENV
from repro_rl.integrations.openenv.models import TaskChoice, TextAction, TextObservation, TextState
from repro_rl.integrations.session import StepResult, open_session

_LOCK = threading.RLock()  # data that sessions share is not made for use by several threads at once


class TextEnvironment(Environment[TextAction, TextObservation, TextState]):
    """One session. It is a TaskProvider too: its splits are our task panels."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    REQUIRES_SINGLE_THREAD_EXECUTOR = True  # one thread for all sessions, none for each

    def __init__(self, env: str, settings: Mapping[str, Any] | None = None, split: str = "train"):
        """Raises UnknownNameError, ConfigError and DataError as ``open_session`` does."""
        super().__init__()
        with _LOCK:
            self._session = open_session(env, settings, split=split, form=OPENENV.form)
        self._name = env
        self._state = TextState()

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> TextObservation:
        """Begin ``task=``, or the task ``index=`` of ``split=``, or a random one of it, drawn by ``seed``.

        Raises TaskError for a task that does not exist and ConfigError for an unknown argument.
        """
        chosen = read_settings("reset", TaskChoice, kwargs)
        self._state = TextState(episode_id=episode_id or str(uuid4()))
        with _LOCK:
            result = self._session.reset(chosen.task, chosen.index, seed, chosen.split)
        return self._observe(result, instructions=self._session.instructions)

    def step(self, action: TextAction, timeout_s: float | None = None, **kwargs: Any) -> TextObservation:
        """Play the action. Raises TaskError before a reset and after the end of the episode."""
        with _LOCK:
            result = self._session.step(action.command)
        return self._observe(result)

    def _observe(self, result: StepResult, **more: Any) -> TextObservation:
        self._state = TextState(
            episode_id=self._state.episode_id,
            step_count=result.step,
            task_id=result.task_id,
            won=result.won,
            truncated=result.truncated,
            score=result.score,
            progress=result.progress,
        )
        return TextObservation(
            done=result.done,
            reward=result.score if result.done else 0.0,
            text=result.text,
            goal=result.goal,
            admissible=list(result.admissible),
            valid=result.valid,
            **more,
        )

    @property
    def state(self) -> TextState:
        """Of the episode under way, or over."""
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        """Name, the data behind the tasks, and the rules."""
        text = self._session.env.describe() or f"the environment {self._name} of repro-rl"
        return EnvironmentMetadata(
            name=self._name,
            description=text,
            readme_content=self._session.instructions,
            version=repro_rl.__version__,
        )

    def list_splits(self) -> list[str]:
        """Splits that have tasks."""
        with _LOCK:
            return list(self._session.splits())

    def num_tasks(self, split: str) -> int:
        """Tasks of a split. Raises IndexError on an unknown split, which OpenEnv reports as a bad request."""
        return len(self._ids(split))

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """All tasks of a split, in the order of its panel: id, split, index. Raises as ``num_tasks``."""
        return self.get_task_range(split)

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """One task. Raises IndexError outside the split."""
        ids = self._ids(split)
        if not 0 <= index < len(ids):
            raise IndexError(f"{split} has {len(ids)} tasks, and none at {index}")
        return {"id": ids[index], "split": split, "index": index}

    def get_task_range(
        self, split: str, start: int | None = None, stop: int | None = None
    ) -> list[dict[str, Any]]:
        """The tasks of a slice of a split. Raises as ``num_tasks``."""
        ids = self._ids(split)
        return [
            {"id": ids[i], "split": split, "index": i} for i in range(*slice(start, stop).indices(len(ids)))
        ]

    def _ids(self, split: str) -> tuple[str, ...]:
        try:
            with _LOCK:
                return panel_of(self._session.env, split).ids
        except TaskError as error:
            raise IndexError(str(error)) from error

    def close(self) -> None:
        """Release what the session holds."""
        with _LOCK:
            self._session.close()
