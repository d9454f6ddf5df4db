"""The environment contract: a gymnasium.Env whose observations and actions are text."""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar, TypedDict, TypeVar, get_args

import gymnasium
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.text_space import LONGEST_ACTION, LONGEST_OBSERVATION, AnyText
from repro_rl.errors import ConfigError, TaskError, did_you_mean, named_failure
from repro_rl.registry import Registry
from repro_rl.settings import Section, problems_in

S = TypeVar("S", bound=Section)
# Free text in an admissible action, as in search[<your query>]. Other tags, such as <tool_call>, stand.
PLACEHOLDER = re.compile(r"<your [^<>]*>")


def filled(action: str, text: str) -> str:
    """The action with ``text`` where its free text goes; another action as it is."""
    return PLACEHOLDER.sub(lambda _: text, action)


class StepInfo(TypedDict, total=False):
    """Keys of ``info``. All but ``brief`` are always there."""

    task_id: str  # the id under which ``reset`` finds this task again
    goal: str  # one sentence
    admissible: list[str]  # actions in the exact form that ``step`` accepts
    anchor: Hashable  # key of the state; equal keys form a step group
    valid: bool  # the last action was understood and possible (True after reset)
    won: bool  # the task is solved
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
    max_steps: int = 0  # at which ``step`` truncates; every environment sets it
    instructions: str = ""  # the rules as plain text, for prompts in the full style
    example_action: str = "..."  # in the example of an answer's form, for prompts in the full style
    settings_schema: ClassVar[type[Section] | None] = None  # of its keyword arguments, where there is one
    free_settings: ClassVar[frozenset[str]] = frozenset()  # may differ from those of demonstrations:
    # which tasks there are, how long they last and what they pay; not what a text looks like
    for_people: Mapping[str, Any] = MappingProxyType({})  # default settings of the ``play`` command
    for_models: Mapping[str, Any] = MappingProxyType({})  # default settings of the adapters (integrations)
    shortcuts: Mapping[str, str] = MappingProxyType({})  # typed text -> action, for the ``play`` command
    observation_space: gymnasium.Space[str] = AnyText(LONGEST_OBSERVATION)
    action_space: gymnasium.Space[str] = AnyText(LONGEST_ACTION)

    @abstractmethod
    def panel(self, split: str) -> TaskPanel:
        """The fixed tasks of ``split``. Raises TaskError on an unknown split."""

    @abstractmethod
    def expert(self) -> str | None:
        """The next action of a solving plan from the current state; None when there is none."""

    def reader(self, seed: int = 0) -> str | None:
        """The next action of an expert that knows only what this episode has shown; None when it has none.

        ``seed`` breaks ties; keep it during an episode. An environment whose ``expert`` knows more than the
        agent sees should define it; the default is ``expert``.
        """
        return self.expert()

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
        """One line on the data behind the tasks, for ``doctor`` and manifests. Empty (the default): none."""
        return ""

    def picture(self) -> str | None:
        """The current state drawn for people, in whichever style observations are; None (the default): it has
        no picture, so its observation is shown."""
        return None

    def task_type(self, task_id: str) -> str | None:
        """The type of the task, for success rates per type; None (the default): the tasks have no types."""
        return None

    def vocabulary(self) -> Iterable[str]:
        """Every whitespace-separated word the compact observations and actions can hold.

        The tiny policy builds its tokenizer from it. Empty (the default): words come from the demonstrations.
        """
        return ()


def read_settings(env: str, schema: type[S], values: Mapping[str, Any]) -> S:
    """The checked settings of an environment.

    Raises ConfigError that names the environment, the setting and the nearest known name.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = [_problem(env, schema, problem) for problem in problems_in(error)]
        raise ConfigError("\n".join(problems)) from error


def _problem(env: str, schema: type[Section], problem: ErrorDetails) -> str:
    name, value = ".".join(map(str, problem["loc"])), problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"{env} has no setting {name!r}{did_you_mean(name, schema.model_fields)}"
    if problem["type"] == "literal_error":
        choices = get_args(schema.model_fields[name].annotation)
        return f"{env}: {name}={value!r} is unknown{did_you_mean(str(value), choices)}"
    if problem["type"] == "greater_than_equal":
        return f"{env}: {name}={value!r}; use {problem['ctx']['ge']} or more."
    message = problem["msg"].removeprefix("Value error, ")
    return f"{env}: {name}={value!r}: {message}" if name else f"{env}: {message}"


EnvFactory = Callable[..., TextEnv]
ENVS: Registry[EnvFactory] = Registry("environment", group="repro_rl.envs", setting="env.name")


def panel_of(env: TextEnv, split: str) -> TaskPanel:
    """The fixed tasks of ``split``, asked from outside the environment.

    Raises TaskError on an unknown split, and ConfigError for whatever else the environment raises, and where
    it returns something else.
    """
    with own_code(env, f"panel({split!r})"):
        panel = env.panel(split)
        if not isinstance(panel, TaskPanel):
            raise ConfigError(
                f"panel({split!r}) of {_called(env)} returned {type(panel).__name__}; it must return a "
                "repro_rl.TaskPanel."
            )
    return panel


def description_of(env: TextEnv) -> str:
    """One line on the data behind the tasks; empty: none. Raises ConfigError where the code fails."""
    with own_code(env, "describe()"):
        return env.describe()


def own_code(env: TextEnv, call: str) -> AbstractContextManager[None]:
    """What a user's environment raises inside, and not on purpose, becomes a ConfigError with its place.

    ``call``: what is called of it, such as "describe()".
    """
    return _named(type(env), f"{call} of {_called(env)}")


def _called(env: TextEnv) -> str:
    return f"{type(env).__name__} (the environment {getattr(env, 'name', '')!r})"


def _named(code: Any, what: str) -> AbstractContextManager[None]:
    """``named_failure`` for code of a user; a failure of our own stays what it is."""
    ours = str(getattr(code, "__module__", "")).startswith("repro_rl.")
    return nullcontext() if ours else named_failure(what)


def has_tasks(env: TextEnv, split: str) -> bool:
    """Whether the environment has this split, and tasks in it. Raises ConfigError as ``panel_of`` does."""
    try:
        return len(panel_of(env, split)) > 0
    except TaskError:
        return False


def register_env(name: str) -> Callable[[EnvFactory], EnvFactory]:
    """Decorator: make a TextEnv class or factory available as ``repro_rl.make(name, **kwargs)``."""
    return ENVS.register(name)


NEEDED = ("reset", "step", "panel", "max_steps")


def _lacks(env: Any, name: str) -> bool:
    """Whether ``env`` has no such attribute, or only the abstract one of ``TextEnv``."""
    found = getattr(env, name, None)
    return found is None or getattr(found, "__isabstractmethod__", False)


def make(name: str, **kwargs: Any) -> TextEnv:
    """Build an environment by name.

    Raises UnknownNameError (with the nearest name), and ConfigError for an unknown or missing keyword. So it
    does for an environment without a step limit, or without a method that every one must have. Whatever else
    the environment's own code raises becomes a ConfigError with its place.
    """
    factory = ENVS.get(name)
    for problem in _keyword_problems(name, factory, kwargs):
        raise ConfigError(problem.text)
    given = ", ".join(f"{key}={_shown(value)}" for key, value in kwargs.items())
    called = getattr(factory, "__name__", type(factory).__name__)
    with _named(factory, f"{called}({given}) of the environment {name!r} (env.name, env.settings)"):
        env = factory(**kwargs)
        _check_made(name, env)
    return env


@dataclass(slots=True, frozen=True)
class SettingProblem:
    """Why an environment does not take its settings."""

    text: str
    keys: tuple[str, ...]  # parts of the setting's name; () for a rule that joins several
    given: bool = True  # False: it is one that is missing


def setting_problems(name: str, kwargs: Mapping[str, Any]) -> list[SettingProblem]:
    """What ``make`` would refuse of the keyword arguments, as far as it is known without building anything.

    That is all where ``settings_schema`` says what the environment takes. Raises UnknownNameError.
    """
    factory = ENVS.get(name)
    found = list(_keyword_problems(name, factory, kwargs))
    schema = _read_schema(factory)
    if found or schema is None:
        return found
    try:
        schema.model_validate(kwargs)
    except ValidationError as error:
        return [
            SettingProblem(
                _problem(f"Environment {name!r}", schema, problem), tuple(map(str, problem["loc"]))
            )
            for problem in problems_in(error)
        ]
    return []


def _read_schema(factory: EnvFactory) -> type[Section] | None:
    """The schema that ``factory`` passes its keywords to as they are; None where that is not known.

    A class derived from one with a schema may set some of them itself.
    """
    if not (isinstance(factory, type) and issubclass(factory, TextEnv)):
        return None
    own = next(vars(kind) for kind in factory.__mro__ if "__init__" in vars(kind))
    return own.get("settings_schema")


def _keyword_problems(name: str, factory: EnvFactory, kwargs: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Keywords that the environment does not take, and those that it needs."""
    parameters = inspect.signature(factory).parameters
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in kwargs:
            if key not in parameters:
                text = f"Environment {name!r} has no setting {key!r}{did_you_mean(key, parameters)}"
                yield SettingProblem(text, (key,))
    for key, parameter in parameters.items():
        if key not in kwargs and parameter.default is parameter.empty and parameter.kind not in kinds:
            yield SettingProblem(
                f"Environment {name!r} needs the setting {key!r}, which has no default: give "
                f"env.settings.{key} (in doctor and play {key}=VALUE).",
                (key,),
                given=False,
            )


def _check_made(name: str, env: Any) -> None:
    """Raises ConfigError for an environment that lacks what every one must have."""
    lacking = [needed for needed in NEEDED if _lacks(env, needed)]
    if lacking:
        raise ConfigError(
            f"Environment {name!r}: {type(env).__name__} lacks {', '.join(lacking)}. Derive it from "
            "repro_rl.TextEnv and define them, or wrap it as docs/your-environment.md shows."
        )
    if not isinstance(env.max_steps, Integral) or env.max_steps < 1:
        raise ConfigError(
            f"Environment {name!r}: max_steps of {type(env).__name__} is {env.max_steps!r}; it must be 1 or "
            "more. Set it in the class or in __init__: the step at which an episode is truncated."
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
