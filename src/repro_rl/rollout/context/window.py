"""Window mode: every step has a prompt of its own, with the last steps in it; so has the reflection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repro_rl.errors import PreflightError
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout.act import Actor, PlayOptions, RolloutRequest, run_episodes
from repro_rl.rollout.context.base import (
    MAX_LIVE,
    Context,
    check_length,
    first_inputs,
    reflection_sample,
    replayed,
)
from repro_rl.rollout.context.targets import expert_answer, ids_of
from repro_rl.rollout.episode import labels_of
from repro_rl.rollout.fit import fitting_prompt
from repro_rl.rollout.privileged import privileged_ids, privileged_text
from repro_rl.rollout.reflection import Judge, fitting_reflection, reflect
from repro_rl.rollout.samples import SampleFormat, make_sample, target_sample, trained_parts
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Group, Ids, Piece, Sample, TokenKind, Trajectory


class WindowContext(Context):
    """One prompt a step; one sample a completion."""

    name = "window"

    def play(
        self, requests: Sequence[RolloutRequest], actor: Actor, judge: Judge | None, options: PlayOptions
    ) -> list[Trajectory]:
        trajectories: list[Trajectory] = []
        live = options.max_live or MAX_LIVE
        if judge is not None:
            self.check_guided(actor.prompts, (judge.policy or actor.policy).codec)
        for start in range(0, len(requests), live):
            chunk = requests[start : start + live]
            trajectories += run_episodes(self.pool, chunk, actor, options, self.limits.prompt)
        if judge is not None:
            judged = trajectories if judge.chosen is None else judge.chosen(trajectories)
            self.reflect_on(judged, actor, judge, options)
        return trajectories

    def reflect_on(
        self, trajectories: Sequence[Trajectory], actor: Actor, judge: Judge, options: PlayOptions
    ) -> None:
        for sampling, indices in judge.by_sampling(trajectories).items():
            judged = [trajectories[index] for index in indices]
            reflect(
                judged,
                Actor(judge.policy or actor.policy, actor.prompts, sampling),
                instructions=self.pool.first.instructions,
                stream=options.stream,
                max_prompt_tokens=self.limits.reflect_prompt,
            )
            if options.on_episode is not None:
                for trajectory in judged:
                    options.on_episode(trajectory)

    def samples(self, groups: Sequence[Group], sample_format: SampleFormat) -> list[Sample]:
        """One sample a completion, of steps and of reflections that are trained on."""
        return [
            make_sample([part], index)
            for index, group in enumerate(groups)
            for trajectory in group.trajectories
            for part in trained_parts(trajectory, sample_format)
            if part.completion.token_ids
        ]

    def action_demos(
        self,
        trajectory: Trajectory,
        prompts: PromptBuilder,
        codec: TextCodec,
        demonstrations: Sequence[str] = ("",),
    ) -> list[Sample]:
        """One sample a step: the prompt that an agent would see, and the expert's answer to it."""
        return [
            target_sample([Piece(codec.encode(prompt), TokenKind.CONTEXT), *target])
            for prompt, target in self._answered(trajectory, prompts, codec, list(demonstrations))
        ]

    def privileged_demos(
        self, trajectory: Trajectory, prompts: PromptBuilder, codec: TextCodec, what: str
    ) -> list[Sample]:
        """One sample a step: the prompt of a second scoring, and the expert's answer to it."""
        text = privileged_text(trajectory, what, prompts)
        limit = self.limits.privileged(codec.positions)
        samples = []
        for prompt, target in self._answered(trajectory, prompts, codec, [""]) if text else ():
            ids = privileged_ids(prompt, text, what, prompts, codec, limit)
            if ids is not None:
                samples.append(target_sample([Piece(ids, TokenKind.CONTEXT), *target]))
        return samples

    def _answered(
        self, trajectory: Trajectory, prompts: PromptBuilder, codec: TextCodec, texts: list[str]
    ) -> Iterator[tuple[str, list[Piece]]]:
        """Each step's prompt as an agent would see it, and the expert's answer.

        ``texts``: demonstrations, as in ``fitting_prompt``. Raises as ``action_demos``.
        """
        for inputs, step in replayed(self.pool.first, trajectory):
            prompt = fitting_prompt(codec, prompts, self.limits.prompt, texts, inputs)
            if prompt is None:
                raise PreflightError(
                    f"The prompt of step {step.t} of {trajectory.task_id} has more than "
                    f"{self.limits.prompt} tokens; raise prompt.max_prompt_tokens."
                )
            target = expert_answer(step, prompts, codec)
            if not target:  # a dead end, in which the expert had no answer
                continue
            check_length("prompt.action_tokens", self.limits.action, len(ids_of(target)))
            yield prompt.text, target

    def reflection_demo(
        self, trajectory: Trajectory, prompts: PromptBuilder, codec: TextCodec, *names: object
    ) -> Sample:
        """The trajectory with its outcome, shortened as in RL where it must be, and the labelled values."""
        values, limit = labels_of(trajectory), self.limits.reflect_prompt
        fitted = fitting_reflection(trajectory, codec, prompts, self.pool.first.instructions, limit)
        if fitted is None:
            raise PreflightError(
                f"The reflection prompt of {trajectory.task_id} has more than {limit} tokens; raise "
                "prompt.max_reflect_tokens."
            )
        return reflection_sample(codec.encode(fitted[0]), values, prompts, codec, self.limits.reflection)

    def reflection_prompts(
        self, act: PromptBuilder, progress: PromptBuilder, modes: Sequence[str]
    ) -> list[PromptBuilder]:
        """A reflection prompt is the same whichever prompts the steps had."""
        return [progress]

    def first_prompt(self, prompts: PromptBuilder, codec: TextCodec, task: str) -> str:
        inputs = first_inputs(self.pool.first, task)
        fitted = fitting_prompt(codec, prompts, self.limits.prompt, [""], inputs)
        if fitted is None:
            raise PreflightError(
                f"The first prompt of {task} has {len(codec.encode(prompts.act(inputs)))} tokens, and "
                f"{self.limits.prompt} are left by prompt.max_prompt_tokens and the model's positions "
                f"({codec.positions}) less prompt.action_tokens ({self.limits.action}); raise "
                "prompt.max_prompt_tokens, or use a shorter style."
            )
        return fitted.text

    def longest_sequence(self) -> int:
        limits = self.limits
        return max(limits.prompt + limits.action, limits.reflect_prompt + limits.reflection)


def imitation_sample(prompt: Ids, target: Ids, kind: TokenKind) -> Sample:
    """A sample that trains on ``target`` after ``prompt``."""
    return target_sample([(prompt, TokenKind.CONTEXT), (target, kind)])
