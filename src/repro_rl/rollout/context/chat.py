"""Chat mode: an episode is one growing conversation, and its reflection the last turn.

A conversation has at most ``ContextLimits.conversation`` tokens, and what the reflection needs is reserved
from the start, so it always fits. A turn longer than ``ContextLimits.prompt`` has its observation shortened
(full style). When the next turn and its answer no longer fit, the episode ends there with
``Status.CONTEXT_FULL`` and is judged as a failure (decision D37). Earlier turns are never dropped:
completions that were sampled with them could not be trained on without them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repro_rl.errors import ConfigError, PreflightError
from repro_rl.policy.base import ChatSession, Keys
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout.act import (
    Actor,
    LiveEpisode,
    PlayOptions,
    RolloutRequest,
    act_together,
    begin_episodes,
)
from repro_rl.rollout.context.base import MAX_LIVE, Context, ContextLimits, first_inputs
from repro_rl.rollout.context.chat_demos import ChatDemos
from repro_rl.rollout.context.turn_budget import TurnBudget
from repro_rl.rollout.env_pool import EnvPool
from repro_rl.rollout.episode import completions_of
from repro_rl.rollout.fit import FittedPrompt
from repro_rl.rollout.reflection import Judge, read_reflection, reflection_forms, reflection_keys
from repro_rl.rollout.samples import SampleFormat, make_sample, trained_parts
from repro_rl.text.prompts import PromptBuilder
from repro_rl.text.turns import TurnPrompts
from repro_rl.types import Completion, Group, Sample, Status, Trajectory


class ChatContext(Context):
    """One conversation an episode; one sample a conversation."""

    name = "chat"

    def __init__(self, pool: EnvPool, limits: ContextLimits):
        super().__init__(pool, limits)
        self._builders: dict[int, ChatDemos] = {}

    def play(
        self, requests: Sequence[RolloutRequest], actor: Actor, judge: Judge | None, options: PlayOptions
    ) -> list[Trajectory]:
        """As ``Context.play``; a conversation is always judged by the policy that acted in it.

        Without a judge the tokens of the reflection stay reserved, so the same episodes are played. A first
        turn that does not fit fails its episode. Raises ConfigError for a judge with a policy of its own.
        """
        if judge is not None and judge.policy is not None:
            raise ConfigError(
                "A conversation is judged by the policy that acted in it: with context=chat a Judge takes no "
                "policy of its own."
            )
        at_once = max(1, self.limits.cache // self.limits.conversation)
        count = min(options.max_live or MAX_LIVE, at_once)
        if judge is not None:
            self.check_guided(actor.prompts, actor.policy.codec)
        trajectories: list[Trajectory] = []
        while len(trajectories) < len(requests):
            session = actor.policy.open_chat()
            most = session.most_rows(self.limits.conversation)  # of what is free now
            stop = len(trajectories) + (count if most is None else min(count, most))
            episodes, begun = begin_episodes(self.pool, requests[len(trajectories) : stop], options)
            budget = TurnBudget(TurnPrompts(actor.prompts), session.size, self.limits)
            _act(episodes, session, budget, actor, options, keep_open=judge is not None)
            if judge is not None:
                _reflect(episodes, session, budget, judge, options.stream)
                if options.on_episode is not None:
                    for episode in episodes:
                        options.on_episode(episode.trajectory)
            trajectories += begun
        return trajectories

    def samples(self, groups: Sequence[Group], sample_format: SampleFormat) -> list[Sample]:
        """One sample a trajectory: every answer trained in the conversation, with its step's advantage.

        A reflection that is not trained on is left out: as the last turn, nothing else depends on it.
        """
        samples = []
        for index, group in enumerate(groups):
            for trajectory in group.trajectories:
                parts = trained_parts(trajectory, sample_format)
                if any(part.completion.token_ids for part in parts):
                    samples.append(make_sample(parts, index))
        return samples

    def action_demos(
        self,
        trajectory: Trajectory,
        prompts: PromptBuilder,
        codec: TextCodec,
        demonstrations: Sequence[str] = ("",),
    ) -> list[Sample]:
        """The episode as one conversation; one that is too long gives its beginning."""
        sample = self._demos(prompts, codec).actions(trajectory, demonstrations)
        return [sample] if sample.trained.any() or sample.branches else []

    def reflection_demo(
        self, trajectory: Trajectory, prompts: PromptBuilder, codec: TextCodec, *names: object
    ) -> Sample:
        """The reflection after the episode, whose answers are context with random online progress."""
        return self._demos(prompts, codec).reflection(trajectory, *names)

    def longest_reflection_demo(
        self, trajectory: Trajectory, prompts: PromptBuilder, codec: TextCodec
    ) -> Sample:
        """With the longest numbers in place of random ones."""
        return self._demos(prompts, codec).longest_reflection(trajectory)

    def _demos(self, prompts: PromptBuilder, codec: TextCodec) -> ChatDemos:
        """One builder for each prompt format: it remembers the sizes of turns."""
        demos = self._builders.get(id(prompts))
        if demos is None or demos.prompts is not prompts or demos.codec is not codec:
            demos = self._builders[id(prompts)] = ChatDemos(self.pool.first, codec, prompts, self.limits)
        return demos

    def reflection_prompts(
        self, act: PromptBuilder, progress: PromptBuilder, modes: Sequence[str]
    ) -> list[PromptBuilder]:
        """A reflection follows answers with or without progress, as far as both are taught."""
        taught = sorted({mode == "progress" for mode in modes}) or [True]
        return [progress if reports else act for reports in taught]

    def first_prompt(self, prompts: PromptBuilder, codec: TextCodec, task: str) -> str:
        turns = TurnPrompts(prompts)
        budget = TurnBudget(turns, codec.turn_size, self.limits)
        inputs = first_inputs(self.pool.first, task)
        fitted = budget.fit_turn(inputs, [""], used=0)
        if fitted is None:
            limits = self.limits
            raise PreflightError(
                f"The first turn of {task} has {len(codec.encode(turns.act(inputs)))} tokens; with an answer "
                f"of {limits.action} and a reflection of {limits.reflection} (prompt.action_tokens, "
                f"prompt.reflect_new_tokens) that is too much for turns of {limits.prompt} "
                f"(prompt.max_prompt_tokens) and conversations of {limits.conversation} "
                "(prompt.max_chat_tokens, or the model's positions)."
            )
        return fitted.text

    def longest_sequence(self) -> int:
        return self.limits.conversation

    def metrics(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        lengths = [
            sum(c.prompt_tokens + c.tokens for c in completions_of(trajectory))  # other ranks' have no ids
            for trajectory in trajectories
            if trajectory.steps
        ]
        full = sum(trajectory.status is Status.CONTEXT_FULL for trajectory in trajectories)
        return {
            "rollout/context_full": full / max(len(trajectories), 1),
            "rollout/conversation_tokens": float(np.mean(lengths)) if lengths else 0.0,
        }

    def shows_once(self) -> bool:
        return True


def _act(
    episodes: list[LiveEpisode],
    session: ChatSession,
    budget: TurnBudget,
    actor: Actor,
    options: PlayOptions,
    *,
    keep_open: bool,
) -> None:
    """Play all episodes to their ends; ``keep_open``: their conversations stay open for the reflection."""

    def fit(row: int, t: int) -> FittedPrompt | None:
        episode = episodes[row]
        inputs = episode.inputs(history=False)
        prompt = budget.fit_turn(inputs, episode.demonstrations, session.used(row))
        if prompt is None and t == 1:
            limit = budget.limits.prompt
            episode.trajectory.fail(
                f"the first turn is longer than {limit} tokens, or leaves too few for the rest"
            )
        elif prompt is None:
            episode.trajectory.status = Status.CONTEXT_FULL
        return prompt

    def complete(rows: Sequence[int], turns: Sequence[str], keys: Keys) -> list[Completion]:
        return session.answer(rows, turns, keys, actor.sampling)

    def close(row: int) -> None:
        if not keep_open or episodes[row].trajectory.failed:
            session.close(row)
        if not keep_open and options.on_episode is not None:
            options.on_episode(episodes[row].trajectory)

    act_together(episodes, fit, complete, actor.prompts.fmt, options.on_done, close)


def _reflect(
    episodes: Sequence[LiveEpisode], session: ChatSession, budget: TurnBudget, judge: Judge, stream: object
) -> None:
    """Ask for the reflection as the last turn of every episode that has steps and did not fail."""
    rows: list[int] = []
    questions: list[tuple[str, bool]] = []
    for row, episode in enumerate(episodes):
        trajectory = episode.trajectory
        if trajectory.steps and not trajectory.failed:
            rows.append(row)
            questions.append(budget.fit_question(trajectory, session.used(row)))
    if not rows:
        return
    trajectories = [episodes[row].trajectory for row in rows]
    keys = reflection_keys(trajectories, stream)
    for sampling, indices in judge.by_sampling(trajectories).items():
        texts = [questions[index][0] for index in indices]
        forms = reflection_forms([trajectories[index] for index in indices], budget.turns.prompts)
        chosen = [rows[index] for index in indices]
        completions = session.answer(chosen, texts, keys[indices], sampling, forms)
        for index, completion in zip(indices, completions, strict=True):
            text, shortened = questions[index]
            trajectory = trajectories[index]
            fmt = budget.turns.fmt
            trajectory.reflection = read_reflection(trajectory, text, completion, fmt, shortened)
            session.close(rows[index])
