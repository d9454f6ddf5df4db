"""Reflection: after an episode a policy judges every step once, knowing the outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repro_rl.policy.base import Keys, Policy, PromptText, SamplingSettings
from repro_rl.random_streams import name_key
from repro_rl.rollout.act import Actor, with_cut
from repro_rl.rollout.fit import largest_fitting, shorten
from repro_rl.text.guided import GuidedText
from repro_rl.text.parse import TextFormat, parse_reflection
from repro_rl.text.prompts import PromptBuilder, ReflectStep
from repro_rl.types import Completion, Reflection, Trajectory

NO_ANSWER = "no_answer"  # the defect of a reflection that a server did not write


@dataclass(slots=True, frozen=True)
class Judge:
    """The policy that reflects on finished episodes, and how each reflection is sampled."""

    sampling: SamplingSettings | Callable[[Trajectory], SamplingSettings]
    policy: Policy | None = None  # None: the policy that acted
    # Which of the finished episodes are judged, where they can be told before; None: all.
    chosen: Callable[[Sequence[Trajectory]], Sequence[Trajectory]] | None = None

    def by_sampling(self, trajectories: Sequence[Trajectory]) -> dict[SamplingSettings, list[int]]:
        """Indices of the trajectories whose reflections are sampled alike."""
        groups: dict[SamplingSettings, list[int]] = {}
        for index, trajectory in enumerate(trajectories):
            sampling = self.sampling
            settings = sampling if isinstance(sampling, SamplingSettings) else sampling(trajectory)
            groups.setdefault(settings, []).append(index)
        return groups


def reflection_prompt(
    trajectory: Trajectory,
    prompts: PromptBuilder,
    instructions: str,
    *,
    briefly: bool = False,
    characters: int | None = None,
) -> str:
    """The reflection prompt of a finished episode: its trajectory and its known outcome.

    ``briefly``: results in the environment's short form. ``characters``: longest observation.
    """

    def cut(text: str) -> str:
        return text if characters is None else shorten(text, characters)

    return prompts.reflect(
        instructions=instructions,
        goal=trajectory.goal,
        steps=[
            ReflectStep(
                t=step.t,
                observation_before=cut(step.observation),
                action=step.action,
                feedback=cut(step.brief if briefly else step.feedback),
                brief=step.brief,
            )
            for step in trajectory.steps
        ],
        won=trajectory.won,
        score=trajectory.score,
        first_observation=cut(trajectory.steps[0].observation),
    )


def fitting_reflection(
    trajectory: Trajectory, codec: PromptText, prompts: PromptBuilder, instructions: str, limit: int
) -> tuple[str, bool] | None:
    """The reflection prompt in at most ``limit`` tokens, and whether anything was shortened.

    First results take their short form, where the environment has one; then all observations are cut to one
    length (see ``fit.shorten``), the largest that fits. None when even that is longer; compact prompts are
    never shortened.
    """

    def attempt(**how: Any) -> str | None:
        prompt = reflection_prompt(trajectory, prompts, instructions, **how)
        return prompt if len(codec.encode(prompt)) <= limit else None

    prompt = attempt()
    if prompt is not None or prompts.fmt.style == "compact":
        return None if prompt is None else (prompt, False)
    briefly = any(len(step.brief) < len(step.feedback) for step in trajectory.steps)
    if briefly and (prompt := attempt(briefly=True)) is not None:
        return prompt, True
    longest = max(len(part) for step in trajectory.steps for part in (step.observation, step.feedback))
    prompt = largest_fitting(longest, lambda characters: attempt(briefly=briefly, characters=characters))
    return None if prompt is None else (prompt, True)


def read_reflection(
    trajectory: Trajectory, prompt: str, completion: Completion, fmt: TextFormat, shortened: bool
) -> Reflection:
    """The reflection that ``completion`` holds: T values, or named defects."""
    if completion.error is not None:
        return Reflection(prompt, completion, None, (NO_ANSWER,), shortened=shortened)
    parsed = parse_reflection(completion.text, fmt, len(trajectory.steps))
    values = parsed.values if completion.finished else None
    return Reflection(prompt, completion, values, with_cut(parsed.defects, completion), shortened=shortened)


def reflect(
    trajectories: Sequence[Trajectory],
    actor: Actor,
    *,
    instructions: str,
    stream: object,
    max_prompt_tokens: int,
) -> None:
    """Fill ``trajectory.reflection`` of every episode that has steps.

    ``actor``: the policy that is asked, with its prompts and sampling. ``instructions``: the environment's
    rules. ``stream`` names the randomness. Observations of a long trajectory are shortened.

    Without values the reflection has defects. They are "prompt_too_long" where even the shortened prompt is
    longer, "no_answer" where a server did not answer, else those of the parser.
    """
    policy, prompts = actor.policy, actor.prompts
    judged: list[tuple[Trajectory, str, bool]] = []  # with the prompt, and whether it was shortened
    for trajectory in trajectories:
        if not trajectory.steps:
            continue
        fitted = fitting_reflection(trajectory, policy.codec, prompts, instructions, max_prompt_tokens)
        if fitted is None:
            text = reflection_prompt(trajectory, prompts, instructions)
            empty = Completion((), (), np.zeros(0, np.float32), "", False)
            trajectory.reflection = Reflection(text, empty, None, ("prompt_too_long",))
            continue
        judged.append((trajectory, *fitted))
    if not judged:
        return
    keys = reflection_keys([trajectory for trajectory, _, _ in judged], stream)
    forms = reflection_forms([trajectory for trajectory, _, _ in judged], prompts)
    completions = policy.generate([text for _, text, _ in judged], keys, actor.sampling, forms)
    for (trajectory, text, shortened), completion in zip(judged, completions, strict=True):
        trajectory.reflection = read_reflection(trajectory, text, completion, prompts.fmt, shortened)


def reflection_forms(trajectories: Sequence[Trajectory], prompts: PromptBuilder) -> list[GuidedText] | None:
    """What is given of each reflection; None where they are free text."""
    forms = [prompts.reflection_form(len(trajectory.steps)) for trajectory in trajectories]
    return [form for form in forms if form is not None] or None


def reflection_keys(trajectories: Sequence[Trajectory], stream: object) -> Keys:
    """[E] keys of the random streams that reflections are sampled with."""
    keys = [name_key(stream, "reflect", t.task_id, t.rollout) for t in trajectories]
    return np.array(keys, dtype=np.uint64)
