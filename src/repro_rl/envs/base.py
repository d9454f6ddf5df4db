"""The environment contract: a gymnasium.Env whose observations and actions are text."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypedDict

import gymnasium
from gymnasium import spaces

from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import TaskError
from repro_rl.registry import Registry

PLACEHOLDER = re.compile(r"<[^<>]*>")  # what an admissible action leaves open, as in search[<your query>]


class StepInfo(TypedDict, total=False):
    """Keys of ``info``. All but ``brief`` are always there."""

    task_id: str
    goal: str  # one sentence
    admissible: list[str]  # actions in the exact form the environment takes
    anchor: Hashable  # key of the state, for step groups
    valid: bool  # the last action was understood and possible (True after reset)
    won: bool
    score: float  # 0..1
    progress: float | None  # ground truth 0..1, None where unknown
    brief: str  # optional: the part of the observation that changes, for compact reflection prompts


class TextEnv(gymnasium.Env[str, str]):
    """Base class of every environment here.

    ``reset(options={"task": task_id})`` and ``step(action)`` follow gymnasium. Same task id and same actions
    give the same observations, always, in any process. Bad actions never raise: they give ``valid=False`` and
    the environment's own "nothing happened" text. An unknown task id raises TaskError; a broken data file
    DataError.
    """

    name: str = ""
    max_steps: int = 0
    instructions: str = ""  # what the agent is told about the rules, full style (plain text)
    for_people: Mapping[str, Any] = MappingProxyType({})  # settings that ``play`` uses unless told otherwise
    shortcuts: Mapping[str, str] = MappingProxyType({})  # what ``play`` lets people type for an action
    observation_space: gymnasium.Space[str] = spaces.Text(max_length=1_000_000, min_length=0)
    action_space: gymnasium.Space[str] = spaces.Text(max_length=10_000, min_length=0)

    @abstractmethod
    def panel(self, split: str) -> TaskPanel:
        """The fixed tasks of ``split``. Raises TaskError on an unknown split."""

    @abstractmethod
    def expert(self) -> str | None:
        """The next action of a solving plan from the current state; None when there is none."""

    def chosen_task(self, options: dict[str, Any] | None, *splits: str) -> str:
        """``options["task"]``, or a random task (after seeding) of the first of ``splits`` that has any."""
        task = (options or {}).get("task")
        if task is None:
            ids = next((ids for split in splits if (ids := self.panel(split).ids)), ())
            if not ids:
                raise TaskError(f"{self.name} has no task in {', '.join(splits)}; name a task.")
            task = ids[int(self.np_random.integers(len(ids)))]
        return str(task)

    def describe(self) -> str:
        """One line on the data behind the tasks, for ``doctor`` and manifests. Empty: nothing to say."""
        return ""

    def task_type(self, task_id: str) -> str | None:
        """The kind of task that ``task_id`` names, for success per type; None (the default): no kinds."""
        return None

    def vocabulary(self) -> Iterable[str]:
        """Every whitespace-separated word the compact observations and actions can hold.

        The tiny policy builds its tokenizer from it. Empty (the default): words come from the demonstrations.
        """
        return ()


EnvFactory = Callable[..., TextEnv]
ENVS: Registry[EnvFactory] = Registry("environment", group="repro_rl.envs")


def register_env(name: str) -> Callable[[EnvFactory], EnvFactory]:
    """Decorator: make a TextEnv class or factory available as ``repro_rl.make(name, **kwargs)``."""
    return ENVS.register(name)


def make(name: str, **kwargs: Any) -> TextEnv:
    """Build an environment by name.

    Raises UnknownNameError (with the nearest name) and ConfigError for an unknown keyword.
    """
    import inspect

    import repro_rl.envs  # noqa: F401  registers the built-in environments
    from repro_rl.errors import ConfigError, did_you_mean

    factory = ENVS.get(name)
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in kwargs:
            if key not in parameters:
                raise ConfigError(
                    f"Environment {name!r} has no setting {key!r}{did_you_mean(key, parameters)}"
                )
    return factory(**kwargs)
