"""Demonstrations as conversations: one row to imitate per episode.

Two kinds of rows, because they must differ in one thing. In a forward row every answer of an expert is
trained, with its labelled progress. In a reflection row the answers are context and only the reflection is
trained; there the progress said while acting is drawn at random (our decision). Labels are the same for both,
so with the labelled numbers in view a judge would learn to copy them, and then to copy its own online
estimates in RL, where judging apart from them is the point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repro_rl.config import RunConfig
from repro_rl.demos.store import labels_of
from repro_rl.errors import PreflightError
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.turns import Conversation, Turns
from repro_rl.random_streams import name_key
from repro_rl.rollout.chat import fit_turn, fitting_question, reserved
from repro_rl.text.chat import ChatPrompts
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.batch import Row
from repro_rl.train.contexts import chat_room
from repro_rl.train.preflight import check_target
from repro_rl.types import Ids, Step, Trajectory


class ChatDemos:
    """Builds rows. ``env`` is replayed where turns show admissible actions."""

    def __init__(self, config: RunConfig, policy: TransformersPolicy, env: Any):
        self.config, self.policy, self.env = config, policy, env
        self.turns, self.room = Turns(policy), chat_room(config, policy)
        # Our compact templates show no admissible actions, so nothing need be replayed for them.
        self._replays = config.prompt.style == "full" or config.prompt.template_dir is not None
        self._reserved: dict[tuple[str, int, bool], int] = {}

    def forward(self, trajectory: Trajectory, prompts: PromptBuilder, shown: Sequence[str] = ("",)) -> Row:
        """All answers of an expert trained. An episode too long for a conversation gives its beginning.

        ``shown``: demonstrations for its first turn, as in ``fit_turn``. Raises PreflightError when an answer
        is longer than prompt.action_tokens, or not even the first turn fits.
        """
        row = _Row(self.turns)
        for step, turn in self._turns(row, trajectory, prompts, list(shown)):
            answer = self.policy.encode_target(prompts.render_forward_target(step.online, step.action))
            check_target("prompt.action_tokens", self.room.answer, len(answer))
            row.add(turn, answer, trained=True)
        return row.finish("forward")

    def reflection(self, trajectory: Trajectory, prompts: PromptBuilder, *names: object) -> Row:
        """The labelled reflection trained, after the episode with random online progress.

        ``names`` name the random numbers. Raises DataError without labels, PreflightError when the
        conversation or the reflection is too long.
        """
        values = labels_of(trajectory)
        rng = np.random.default_rng(name_key("said", *names, trajectory.task_id))
        # as targets write progress, each number as likely
        said = prompts.resolution * rng.integers(0, 100 // prompts.resolution + 1, size=len(trajectory.steps))
        row = _Row(self.turns)
        for step, turn in self._turns(row, trajectory, prompts, [""]):
            row.add(turn, self._said(step, prompts, int(said[step.t - 1])), trained=False)
        if row.count < len(trajectory.steps):
            raise PreflightError(
                f"The conversation of {trajectory.task_id} has room for {row.count} of its "
                f"{len(trajectory.steps)} steps; raise prompt.max_chat_tokens (now {self.room.conversation})."
            )
        left = self.room.conversation - len(row.talk.ids) - self.room.reflection
        chat = ChatPrompts(prompts)
        text, _ = fitting_question(trajectory, chat, self._size, min(left, self.room.turn))
        target = self.policy.encode_target(prompts.render_reflection_target(values))
        check_target("prompt.reflect_new_tokens", self.room.reflection, len(target))
        row.add(row.talk.turn(text), target, trained=True)
        return row.finish("reflect")

    def _size(self, text: str) -> int:
        return len(self.turns.following(text))

    def _said(self, step: Step, prompts: PromptBuilder, progress: int) -> Ids:
        """An answer as context: what a policy might have said on the way to this action."""
        if not step.action.strip():
            return self.policy.encode_target("")
        return self.policy.encode_target(prompts.render_forward_target(progress, step.action))

    def _turns(
        self, row: _Row, trajectory: Trajectory, prompts: PromptBuilder, shown: list[str]
    ) -> Iterator[tuple[Step, Ids]]:
        """(step, ids of its user turn), as long as there is room. Answers are added by the caller."""
        chat, env = ChatPrompts(prompts), self.env
        info: dict[str, Any] = {"admissible": []}
        if self._replays:
            _, info = env.reset(options={"task": trajectory.task_id})
        for step in trajectory.steps:
            key = (trajectory.goal, step.t, prompts.fmt.progress)
            if key not in self._reserved:
                self._reserved[key] = reserved(chat, self._size, self.room, trajectory.goal, step.t)
            first = step.t == 1
            prompt = fit_turn(
                chat,
                (lambda text: len(self.turns.first(text))) if first else self._size,
                self.room.turn,
                self.room.conversation - len(row.talk.ids) - self.room.answer - self._reserved[key],
                shown,
                instructions=env.instructions,
                goal=trajectory.goal,
                observation=step.observation,
                admissible=info["admissible"],
                step=step.t,
                max_steps=env.max_steps,
            )
            if prompt is None and first:
                raise PreflightError(
                    f"The first turn of {trajectory.task_id} has more than {self.room.turn} tokens, or "
                    f"leaves no room in {self.room.conversation}; raise prompt.max_prompt_tokens or "
                    "prompt.max_chat_tokens."
                )
            if prompt is None:
                return
            yield step, row.talk.turn(prompt.text)
            if self._replays:
                info = env.step(step.action)[4]


class _Row:
    """A conversation and which of its tokens are trained."""

    def __init__(self, turns: Turns):
        self.talk = Conversation(turns)
        self.trained: list[bool] = []
        self.count = 0  # answers

    def add(self, turn: Ids, answer: Ids, *, trained: bool) -> None:
        self.talk.add(turn, answer)
        self.trained += [False] * len(turn) + [trained] * len(answer)
        self.count += 1

    def finish(self, kind: str) -> Row:
        zeros = np.zeros(len(self.trained), dtype=np.float32)
        return Row(
            ids=np.array(self.talk.ids, dtype=np.int64),
            trained=np.array(self.trained, dtype=np.bool_),
            positive=zeros,
            negative=zeros,
            logprob=zeros,
            count=1,
            kind=kind,
        )
