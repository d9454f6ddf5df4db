"""The interface of a context mode: playing, samples, demonstrations to imitate, first prompt, metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import ClassVar

from repro_rl.envs.base import TextEnv
from repro_rl.envs.contract import StepResult, checked_reset, checked_step
from repro_rl.errors import DataError, PreflightError, TaskError
from repro_rl.policy.base import PromptText
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.tokens.guide import token_guide
from repro_rl.rollout.act import Actor, PlayOptions, RolloutRequest
from repro_rl.rollout.env_pool import EnvPool
from repro_rl.rollout.episode import guarded, step_inputs
from repro_rl.rollout.reflection import Judge
from repro_rl.rollout.samples import SampleFormat, guided_target, target_sample
from repro_rl.settings import require
from repro_rl.text.prompts import PromptBuilder, StepInputs
from repro_rl.types import Group, Ids, Piece, Sample, Step, TokenKind, Trajectory

MAX_LIVE = 512  # episodes under way at once, where the caller sets no limit


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """Token budgets. ``within`` bounds them by what a model can hold."""

    prompt: int  # of a step's prompt; chat: of one user turn
    reflect_prompt: int  # window: of a reflection's prompt
    conversation: int  # chat: all turns and answers, the reflection included
    action: int  # longest completion that acts
    reflection: int  # longest reflection
    cache: int  # chat: tokens of all conversations played at once, each at its longest

    def __post_init__(self) -> None:
        """Raises ConfigError for a limit below 1."""
        for item in fields(self):
            value = getattr(self, item.name)
            require(value >= 1, f"ContextLimits.{item.name}", value, "1 or more")

    def within(self, positions: int | None) -> ContextLimits:
        """The same budgets, but no sequence longer than ``positions``; None: not known."""
        if positions is None:
            return self
        return replace(
            self,
            prompt=max(1, min(self.prompt, positions - self.action)),
            reflect_prompt=max(1, min(self.reflect_prompt, positions - self.reflection)),
            conversation=min(self.conversation, positions),
        )

    def privileged(self, positions: int | None) -> int:
        """Most tokens of a prompt that also holds how the episode ended, or the reflection on it.

        ``positions``: those of the model, which an answer has to fit too; None: not known.
        """
        longest = self.prompt + self.reflect_prompt
        return longest if positions is None else min(longest, positions - self.action)


class Context(ABC):
    """A context mode with its environments and token budgets."""

    name: ClassVar[str]  # of ``prompt.context``

    def __init__(self, pool: EnvPool, limits: ContextLimits):
        self.pool, self.limits = pool, limits

    @abstractmethod
    def play(
        self, requests: Sequence[RolloutRequest], actor: Actor, judge: Judge | None, options: PlayOptions
    ) -> list[Trajectory]:
        """Play every request once and, with a judge, reflect on it. Trajectories in the order of requests."""

    def reflect_on(
        self, trajectories: Sequence[Trajectory], actor: Actor, judge: Judge, options: PlayOptions
    ) -> None:
        """Reflect on episodes that were played before.

        Raises NotImplementedError in a conversation, where that is not possible.
        """
        raise NotImplementedError(f"context {self.name!r} reflects in the conversation of the episode alone")

    @abstractmethod
    def samples(self, groups: Sequence[Group], sample_format: SampleFormat) -> list[Sample]:
        """The training samples of credited groups; ``Sample.group`` is the index in ``groups``."""

    @abstractmethod
    def action_demos(
        self,
        trajectory: Trajectory,
        prompts: PromptBuilder,
        codec: TextCodec,
        demonstrations: Sequence[str] = ("",),
    ) -> list[Sample]:
        """An expert's episode as samples to imitate: its answers trained, with their labelled progress.

        ``demonstrations``: texts that prompts may show, the longest first. Raises PreflightError when a
        prompt or an answer is longer than its limit.
        """

    def privileged_demos(
        self, trajectory: Trajectory, prompts: PromptBuilder, codec: TextCodec, what: str
    ) -> list[Sample]:
        """An expert's answers behind the prompts that a second scoring has: ``what``, "end" or "reflection".

        None where there is no such text or no room for it, as there is no such scoring then. Raises as
        ``action_demos``, and NotImplementedError in a conversation, which has no second scoring.
        """
        raise NotImplementedError(f"context {self.name!r} has no prompts that tell the {what} of the episode")

    @abstractmethod
    def reflection_demo(
        self, trajectory: Trajectory, prompts: PromptBuilder, codec: TextCodec, *names: object
    ) -> Sample:
        """A labelled reflection to imitate, after the episode. ``names`` name random numbers, where needed.

        Raises DataError without labels, PreflightError when the prompt or the answer is longer than its
        limit.
        """

    def longest_reflection_demo(
        self, trajectory: Trajectory, prompts: PromptBuilder, codec: TextCodec
    ) -> Sample:
        """The longest that ``reflection_demo`` gives, whatever its random numbers are. Raises as it does."""
        return self.reflection_demo(trajectory, prompts, codec)

    @abstractmethod
    def reflection_prompts(
        self, act: PromptBuilder, progress: PromptBuilder, modes: Sequence[str]
    ) -> list[PromptBuilder]:
        """The prompts that labelled reflections follow, used in turn; ``modes``: the prompts taught."""

    @abstractmethod
    def first_prompt(self, prompts: PromptBuilder, codec: TextCodec, task: str) -> str:
        """The first prompt of ``task`` as it is played. Raises PreflightError when it does not fit."""

    @abstractmethod
    def longest_sequence(self) -> int:
        """Tokens of the longest prompt and completion together."""

    def metrics(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """The metrics of this mode alone; docs/metrics.md explains each."""
        return {}

    def check_guided(self, prompts: PromptBuilder, codec: PromptText) -> None:
        """A guided reflection on the longest episode must fit its limit. Raises PreflightError, ConfigError.

        Nothing is checked where only a server knows its tokens.
        """
        form = prompts.reflection_form(self.pool.first.max_steps)
        if form is not None and isinstance(codec, TextCodec):
            check_reflection_length(self.limits.reflection, token_guide(codec, form).longest)

    def shows_once(self) -> bool:
        """Whether demonstrations stand in the first prompt alone, for the whole episode."""
        return False


def check_length(setting: str, limit: int, needed: int) -> None:
    """A demonstrated completion must fit ``setting``. Raises PreflightError."""
    if needed > limit:
        raise PreflightError(f"{setting} is {limit}, but a demonstration needs {needed} tokens; raise it.")


def check_reflection_length(limit: int, needed: int) -> None:
    """Raises PreflightError for guided reflections that may be longer than ``limit``."""
    if needed > limit:
        raise PreflightError(
            f"prompt.reflect_new_tokens is {limit} (or the model's positions leave no more), but a guided "
            f"reflection on the longest episode has up to {needed} tokens; raise it to that."
        )


def reflection_sample(
    context: Ids, values: Sequence[int], prompts: PromptBuilder, codec: TextCodec, limit: int
) -> Sample:
    """A labelled reflection to imitate, after the ids ``context``; of a guided one, only what is sampled.

    Raises PreflightError when it has more than ``limit`` tokens.
    """
    form = prompts.reflection_form(len(values))
    if form is None:
        target = codec.encode_target(prompts.reflection_target(values))
        check_length("prompt.reflect_new_tokens", limit, len(target))
        return target_sample([Piece(context, TokenKind.CONTEXT), Piece(target, TokenKind.REFLECT)])
    answer, allowed = token_guide(codec, form).encode([prompts.round_progress(value) for value in values])
    check_length("prompt.reflect_new_tokens", limit, len(answer))
    return guided_target(context, answer, allowed, TokenKind.REFLECT)


def first_inputs(env: TextEnv, task: str) -> StepInputs:
    """What the first prompt of ``task`` shows."""
    observation, info = guarded(0, lambda: checked_reset(env.reset(options={"task": task})))
    return step_inputs(env, info["goal"], observation, info["admissible"], ())


def replayed(env: TextEnv, trajectory: Trajectory) -> Iterator[tuple[StepInputs, Step]]:
    """(StepInputs, Step) of every step, the episode played again for its admissible actions.

    Raises DataError for an episode of another environment, or of other settings of it; EnvError where the
    environment fails.
    """
    history: list[tuple[str, str]] = []
    try:
        _, info = guarded(0, lambda: checked_reset(env.reset(options={"task": trajectory.task_id})))
    except TaskError as error:
        raise DataError(
            f"a demonstration is of another environment, or of other settings of it: {error} Give "
            "demonstrations made with the same recipe and the same env settings.",
            record=trajectory.task_id,
        ) from error
    for index, step in enumerate(trajectory.steps):
        state = (trajectory.goal, step.observation, info["admissible"], trajectory.steps[:index])
        yield step_inputs(env, *state, list(history)), step
        history.append((step.observation, step.action))
        info = guarded(index + 1, partial(_taken, env, step.action))[4]


def _taken(env: TextEnv, action: str) -> StepResult:
    return checked_step(env.step(action))
