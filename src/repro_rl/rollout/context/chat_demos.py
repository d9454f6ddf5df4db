"""Demonstrations as conversations: one sample to imitate per episode.

There are two kinds of samples with the same labels. In the first every answer of an expert is trained, with
its labelled progress. In the second the answers are context and only the reflection is trained; there the
online progress is drawn at random (decision D34). A judge that read the labelled numbers would learn to copy
them. In RL it would then copy its own online estimates instead of judging the episode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from repro_rl.envs.base import TextEnv
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.policy.tokens.codec import Conversation, TextCodec
from repro_rl.random_streams import name_key
from repro_rl.rollout.context.base import ContextLimits, check_length, reflection_sample, replayed
from repro_rl.rollout.context.targets import branch_answer, executed_answer, ids_of
from repro_rl.rollout.context.turn_budget import TurnBudget
from repro_rl.rollout.episode import labels_of, step_inputs
from repro_rl.rollout.samples import target_sample
from repro_rl.text.prompts import PromptBuilder, StepInputs
from repro_rl.text.turns import TurnPrompts
from repro_rl.types import Branch, Ids, Piece, Sample, Step, TokenKind, Trajectory


class ChatDemos:
    """Builds the samples of one prompt format. ``env`` is played again for its admissible actions."""

    def __init__(self, env: TextEnv, codec: TextCodec, prompts: PromptBuilder, limits: ContextLimits):
        self.env, self.codec, self.prompts, self.limits = env, codec, prompts, limits
        self.budget = TurnBudget(TurnPrompts(prompts), codec.turn_size, limits)

    def actions(self, trajectory: Trajectory, demonstrations: Sequence[str]) -> Sample:
        """All answers trained; where a mistake was executed, the expert's one is a branch (``targets``).

        Raises PreflightError when an answer, or the first turn, is too long.
        """
        parts: list[Piece] = []
        branches: list[Branch] = []
        conversation = Conversation(self.codec)
        for step, turn in self._turns(conversation, trajectory, list(demonstrations)):
            pieces = executed_answer(step, self.prompts, self.codec)
            other = branch_answer(step, self.prompts, self.codec)
            for answer in (pieces, other):
                check_length("prompt.action_tokens", self.limits.action, len(ids_of(answer)))
            if other:
                branches.append(Branch(len(conversation.ids) + len(turn), other))
            conversation.add(turn, ids_of(pieces))
            parts += [Piece(turn, TokenKind.CONTEXT), *pieces]
        return target_sample(parts, branches)

    def reflection(self, trajectory: Trajectory, *names: object) -> Sample:
        """The labelled reflection trained, after the episode with random online progress.

        ``names`` name the random numbers. Raises DataError without labels, PreflightError when the
        conversation or the reflection is too long.
        """
        return self._reflection(trajectory, self._random_progress(trajectory, *names))

    def longest_reflection(self, trajectory: Trajectory) -> Sample:
        """As ``reflection``, with the number that has most tokens in every answer: no draw is longer."""
        step = self.prompts.resolution
        longest = max(range(0, 101, step), key=lambda value: len(self.codec.encode_target(str(value))))
        return self._reflection(trajectory, [longest] * len(trajectory.steps))

    def _reflection(self, trajectory: Trajectory, online: Sequence[int]) -> Sample:
        """``reflection`` after answers that report ``online`` [T]."""
        values = labels_of(trajectory)
        conversation = Conversation(self.codec)
        answers = 0
        for step, turn in self._turns(conversation, trajectory, [""]):
            conversation.add(turn, self._answer(step, online[step.t - 1]))
            answers += 1
        if answers < len(trajectory.steps):
            raise PreflightError(
                f"The conversation of {trajectory.task_id} has room for {answers} of its "
                f"{len(trajectory.steps)} steps; raise prompt.max_chat_tokens (now "
                f"{self.limits.conversation})."
            )
        question, _ = self.budget.fit_question(trajectory, len(conversation.ids))
        context = (*conversation.ids, *conversation.turn(question))
        return reflection_sample(context, values, self.prompts, self.codec, self.limits.reflection)

    def _random_progress(self, trajectory: Trajectory, *names: object) -> list[int]:
        """Online progress [T], uniform over the numbers that targets may hold."""
        rng = np.random.default_rng(name_key("said", *names, trajectory.task_id))
        step = self.prompts.resolution
        return [int(step * k) for k in rng.integers(0, 100 // step + 1, size=len(trajectory.steps))]

    def _answer(self, step: Step, progress: int) -> Ids:
        """An answer as context: the action with this progress, or nothing where it was no action.

        A recorded action may be one that no answer in this format can express.
        """
        try:
            text = self.prompts.action_target(progress, step.action) if step.action.strip() else ""
        except ConfigError:
            text = ""
        return self.codec.encode_target(text)

    def _turns(
        self, conversation: Conversation, trajectory: Trajectory, demonstrations: list[str]
    ) -> Iterator[tuple[Step, Ids]]:
        """(step, ids of its user turn), as long as they fit. The caller adds the answers."""
        for inputs, step in self._inputs(trajectory):
            prompt = self.budget.fit_turn(inputs, demonstrations, len(conversation.ids))
            if prompt is None and step.t == 1:
                raise PreflightError(
                    f"The first turn of {trajectory.task_id} has more than {self.limits.prompt} tokens, or "
                    f"leaves too few of {self.limits.conversation} for the rest; raise "
                    "prompt.max_prompt_tokens or prompt.max_chat_tokens."
                )
            if prompt is None:
                return
            yield step, conversation.turn(prompt.text)

    def _inputs(self, trajectory: Trajectory) -> Iterator[tuple[StepInputs, Step]]:
        if self.prompts.shows_admissible:
            yield from replayed(self.env, trajectory)
            return
        for index, step in enumerate(trajectory.steps):  # without them the records hold all that a turn shows
            before = trajectory.steps[:index]
            yield step_inputs(self.env, trajectory.goal, step.observation, (), before), step
