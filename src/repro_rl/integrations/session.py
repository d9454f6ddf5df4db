"""One environment, played episode by episode: the common core of the adapters for other libraries.

A session looks after everything that the adapters would otherwise each do in a way of their own. It decides
which task of the panel is played, what a text of the episode shows, the step limit, and the action in an
answer. It also decides which error an environment failure is. The limits and the outcome are those of our own
rollouts (``rollout.act``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from repro_rl.envs.base import ENVS, TextEnv, has_tasks, make, panel_of
from repro_rl.envs.contract import checked_reset, checked_step, overdue
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import ConfigError, EnvError, TaskError, did_you_mean
from repro_rl.rollout.episode import guarded
from repro_rl.text.parse import TextFormat, parse_action
from repro_rl.text.prompts import PromptBuilder, StepInputs
from repro_rl.text.turns import TurnPrompts

Form = Literal["observation", "tools", "chat"]
FORMS: tuple[Form, ...] = ("observation", "tools", "chat")
SPLITS = ("train", "validation", "test")  # that every environment has; some have more
ANSWER = TextFormat("full", progress=False)  # <action>...</action>, a thought before it allowed


@dataclass(slots=True, frozen=True)
class StepResult:
    """What a reset or a step of a session showed."""

    observation: str  # as the environment gave it
    text: str  # what a model is shown, in the session's form
    reward: float  # of this step; 0 after a reset
    done: bool  # the episode is over: won, lost or out of steps
    won: bool
    truncated: bool  # out of steps
    valid: bool  # the action was understood and possible; True after a reset
    score: float  # of the outcome, 0..1
    progress: float | None  # true progress, 0..1; None where the environment does not know it
    admissible: tuple[str, ...]  # actions that are possible now, in the exact form that ``step`` takes
    task_id: str
    goal: str  # one sentence
    step: int  # steps taken in this episode; 0 after a reset
    action: str = ""  # that was played
    defects: tuple[str, ...] = ()  # of the answer that it was read from, named as by ``parse_action``


class EpisodeSession:
    """Plays one episode at a time in an environment of its own. Build it with ``open_session``.

    Not safe for use by several threads at once; sessions are independent of each other.
    """

    def __init__(
        self,
        env: TextEnv,
        split: str = "train",
        form: Form = "observation",
        admissible: bool = True,
        limit: int | None = None,
    ):
        """See ``open_session``. Raises ConfigError for an unknown form, or a limit below 1."""
        if form not in FORMS:
            raise ConfigError(f"form is {form!r}{did_you_mean(str(form), FORMS)}")
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; an episode has at least one step: use 1 or more, or None.")
        self.limit = limit  # of steps, beside the environment's own
        self.env, self.split, self.form, self.lists_actions = env, split, form, admissible
        self.last: StepResult | None = None  # of the episode under way, or over; None before a reset
        self.info: dict[str, Any] = {}  # of the environment, with the keys of ``StepInfo``, as it is now
        self.total_reward = 0.0  # of this episode
        self._random = np.random.default_rng()

    @property
    def panel(self) -> TaskPanel:
        """The tasks of the session's split: ``ids``, ``digest``, ``label()``. Raises TaskError without it."""
        return panel_of(self.env, self.split)

    def panel_of(self, split: str | None) -> TaskPanel:
        """The tasks of a split, the session's own for None. Raises TaskError where there are none."""
        panel = panel_of(self.env, self.split if split is None else split)
        if not len(panel):
            raise TaskError(f"Panel {panel.label()} has no tasks; choose another split.")
        return panel

    def splits(self) -> tuple[str, ...]:
        """Those of train, validation and test that have tasks."""
        return tuple(split for split in SPLITS if has_tasks(self.env, split))

    @property
    def instructions(self) -> str:
        """The rules of the environment."""
        return self.env.instructions

    @property
    def max_steps(self) -> int:
        """An episode is truncated after so many steps: by the environment, or before it by the limit."""
        return self.env.max_steps if self.limit is None else min(self.limit, self.env.max_steps)

    @property
    def done(self) -> bool:
        """Whether there is no episode under way."""
        return self.last is None or self.last.done

    def reset(
        self,
        task: str | None = None,
        index: int | None = None,
        seed: int | None = None,
        split: str | None = None,
    ) -> StepResult:
        """Begin the task with the id ``task``, or at position ``index`` of the panel, or a random one.

        A random task is drawn after seeding with ``seed``; None goes on with the draws. ``split``: another
        panel than the session's, for this episode. An episode under way is given up.

        Raises TaskError for a task, position or split that does not exist and for a negative seed. Raises
        DataError for broken data, and EnvError for an environment that fails or breaks its contract.
        """
        self.last, self.total_reward = None, 0.0
        if seed is not None:
            if seed < 0:
                raise TaskError(f"reset: the seed is {seed}; give a whole number of at least 0.")
            self._random = np.random.default_rng(seed)
        chosen = self._task_at(index, split) if task is None else task
        observation, info = guarded(0, lambda: checked_reset(self.env.reset(options={"task": chosen})))
        self.info = info
        return self._see(_result(info, observation, task_id=chosen))

    def step(self, action: str) -> StepResult:
        """Play ``action`` as it stands.

        Raises TaskError when no episode is under way. Raises EnvError for an environment that fails, breaks
        its contract, or does not end within twice its ``max_steps``. After an error a reset is needed.
        """
        return self._play(action, ())

    def answer(self, text: str) -> StepResult:
        """Play the action in a model's answer, ``<action>...</action>``. Raises what ``step`` does.

        An answer without an action plays "", which is not valid and costs a step, as in our rollouts.
        """
        parsed = parse_action(text, ANSWER)
        return self._play(parsed.action, parsed.defects)

    def close(self) -> None:
        """Release what the environment holds."""
        self.last = None
        self.env.close()

    def _play(self, action: str, defects: tuple[str, ...]) -> StepResult:
        before = self.last
        if before is None or before.done:
            raise TaskError("The episode is over (or has not begun); call reset before step.")
        t, self.last = before.step + 1, None  # None where the environment fails
        observation, reward, terminated, truncated, info = guarded(
            t, lambda: checked_step(self.env.step(action))
        )
        if not terminated and self.limit is not None and t >= self.max_steps:
            truncated = True
        late = None if terminated or truncated else overdue(self.env.max_steps, t)
        if late is not None:
            raise EnvError(late)
        result = _result(info, observation, task_id=before.task_id, step=t)
        self.info = info
        self.total_reward += float(reward)
        return self._see(
            replace(
                result,
                reward=float(reward),
                done=terminated or truncated,
                truncated=truncated,
                action=action,
                defects=defects,
            )
        )

    def _see(self, result: StepResult) -> StepResult:
        self.last = replace(result, text=self._text(result))
        return self.last

    def _text(self, result: StepResult) -> str:
        """The text of a result in the session's form."""
        actions = result.admissible if self.lists_actions else ()
        if self.form == "observation":
            return result.observation
        if self.form == "chat":
            t, limit = result.step + 1, self.max_steps
            state = (result.goal, result.observation, actions, t, limit)
            inputs = StepInputs(self.instructions, *state, example=self.env.example_action)
            return (
                _prompts(self.lists_actions).act(inputs) if t == 1 else _turns(self.lists_actions).act(inputs)
            )
        parts = [f"Your task: {result.goal}"] if result.step == 0 else []
        parts.append(result.observation)
        if result.done:
            parts.append(f"The episode is over: {'won' if result.won else 'not won'}.")
        elif actions:
            parts.append("\n".join(["Possible actions:", *(f"- {action}" for action in actions)]))
        return "\n\n".join(parts)

    def _task_at(self, index: int | None, split: str | None) -> str:
        panel = self.panel_of(split)
        if index is None:
            index = int(self._random.integers(len(panel)))
        if not 0 <= index < len(panel):
            raise TaskError(
                f"Panel {panel.label()} has no task {index}; positions go from 0 to {len(panel) - 1}."
            )
        return panel.ids[index]


def _result(info: dict[str, Any], observation: str, *, task_id: str, step: int = 0) -> StepResult:
    """The result that a checked ``info`` describes, without a text, a reward or an end."""
    progress = info["progress"]
    return StepResult(
        observation=observation,
        text="",
        reward=0.0,
        done=False,
        won=bool(info["won"]),
        truncated=False,
        valid=bool(info["valid"]),
        score=float(info["score"]),
        progress=None if progress is None else float(progress),
        admissible=tuple(info["admissible"]),
        task_id=task_id,
        goal=info["goal"],
        step=step,
    )


@cache
def _prompts(admissible: bool) -> PromptBuilder:
    """Of all sessions of the form "chat": templates are compiled once."""
    return PromptBuilder(ANSWER, history=0, admissible=admissible)


@cache
def _turns(admissible: bool) -> TurnPrompts:
    return TurnPrompts(_prompts(admissible))


def open_session(
    env: str,
    settings: Mapping[str, Any] | None = None,
    *,
    split: str = "train",
    form: Form = "observation",
    admissible: bool = True,
    limit: int | None = None,
) -> EpisodeSession:
    """A session of the environment ``env``, as ``repro_rl.make`` knows it, with its ``settings``.

    Where the settings name no style, observations are in the one for language models
    (``TextEnv.for_models``). ``form`` says what ``StepResult.text`` shows:

    - "observation": the observation alone;
    - "tools": for models that act by tool calls: goal, observation and possible actions, no rules;
    - "chat": for models that answer in text. The first is the prompt of a step of our own recipes, with the
      rules and the form of an answer. Later ones are the turns of a conversation.

    ``admissible``: whether texts of the last two forms list the possible actions. ``limit``: steps after
    which an episode is truncated where the environment allows more.

    Raises UnknownNameError for an unknown environment, ConfigError for unknown settings, DataError for broken
    data.
    """
    factory = ENVS.get(env)
    defaults = factory.for_models if isinstance(factory, type) and issubclass(factory, TextEnv) else {}
    return EpisodeSession(make(env, **{**defaults, **(settings or {})}), split, form, admissible, limit)
