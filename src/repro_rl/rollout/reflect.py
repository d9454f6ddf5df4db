"""The reflection pass: after the episode the same policy judges every step once, knowing the outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repro_rl.policy.base import Policy, SamplingSettings
from repro_rl.random_streams import name_key
from repro_rl.rollout.fit import largest_room, shorten
from repro_rl.text.parse import TextFormat, parse_reflection
from repro_rl.text.prompts import PromptBuilder, ReflectStep
from repro_rl.types import Completion, Reflection, Trajectory

NO_ANSWER, CUT_OFF = "no_answer", "cut_off"  # defects of a completion, beside those of its text


Judge = SamplingSettings | Callable[[Trajectory], SamplingSettings]


def by_sampling(trajectories: Sequence[Trajectory], judge: Judge) -> dict[SamplingSettings, list[int]]:
    """Indices of the trajectories that are judged with the same settings."""
    found: dict[SamplingSettings, list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        settings = judge if isinstance(judge, SamplingSettings) else judge(trajectory)
        found.setdefault(settings, []).append(index)
    return found


def reflection_prompt(
    trajectory: Trajectory,
    prompts: PromptBuilder,
    instructions: str,
    *,
    briefly: bool = False,
    room: int | None = None,
) -> str:
    """The reflection prompt of a finished episode: its trajectory and its known outcome.

    ``briefly``: results in the environment's short form. ``room``: longest observation, in characters.
    """

    def seen(text: str) -> str:
        return text if room is None else shorten(text, room)

    return prompts.reflect(
        instructions=instructions,
        goal=trajectory.goal,
        steps=[
            ReflectStep(
                t=step.t,
                observation_before=seen(step.observation),
                action=step.action,
                feedback=seen(step.brief if briefly else step.feedback),
                brief=step.brief,
            )
            for step in trajectory.steps
        ],
        won=trajectory.won,
        score=trajectory.score,
        first_observation=seen(trajectory.steps[0].observation),
    )


def fitting_reflection(
    trajectory: Trajectory, policy: Policy, prompts: PromptBuilder, instructions: str, limit: int
) -> tuple[str, bool] | None:
    """The reflection prompt in at most ``limit`` tokens, and whether anything was shortened.

    First results take their short form, where the environment has one; then all observations are cut to one
    length (see ``fit.shorten``), the largest that fits. None when even that is longer; compact prompts are
    never shortened.
    """

    def attempt(**how: Any) -> str | None:
        text = reflection_prompt(trajectory, prompts, instructions, **how)
        return text if len(policy.encode(text)) <= limit else None

    text = attempt()
    if text is not None or prompts.fmt.style == "compact":
        return None if text is None else (text, False)
    briefly = any(len(step.brief) < len(step.feedback) for step in trajectory.steps)
    if briefly and (text := attempt(briefly=True)) is not None:
        return text, True
    longest = max(len(text) for step in trajectory.steps for text in (step.observation, step.feedback))
    text = largest_room(longest, lambda room: attempt(briefly=briefly, room=room))
    return None if text is None else (text, True)


def read_reflection(
    trajectory: Trajectory, prompt: str, completion: Completion, fmt: TextFormat, shortened: bool
) -> Reflection:
    """What the policy's answer says about ``trajectory``: T values, or named defects."""
    if completion.error is not None:
        return Reflection(prompt, completion, None, (NO_ANSWER,), shortened=shortened)
    parsed = parse_reflection(completion.text, fmt, len(trajectory.steps))
    defects = parsed.defects if completion.finished else (*parsed.defects, CUT_OFF)
    values = parsed.values if completion.finished else None
    return Reflection(prompt, completion, values, defects, shortened=shortened)


def reflect(
    trajectories: Sequence[Trajectory],
    policy: Policy,
    prompts: PromptBuilder,
    sampling: SamplingSettings,
    *,
    instructions: str,
    stream: object,
    max_prompt_tokens: int = 4096,
) -> None:
    """Fill ``trajectory.reflection`` of every episode that has steps.

    Observations of a long trajectory are shortened; one that is still too long gets the defect
    "prompt_too_long" and no values, one that a server did not answer "no_answer"; a rubbish text named
    defects.
    """
    ready: list[Trajectory] = []
    texts: list[str] = []
    cut: list[bool] = []
    for trajectory in trajectories:
        if not trajectory.steps:
            continue
        fitted = fitting_reflection(trajectory, policy, prompts, instructions, max_prompt_tokens)
        if fitted is None:
            text = reflection_prompt(trajectory, prompts, instructions)
            empty = Completion((), (), np.zeros(0, np.float32), "", False)
            trajectory.reflection = Reflection(text, empty, None, ("prompt_too_long",))
            continue
        ready.append(trajectory)
        texts.append(fitted[0])
        cut.append(fitted[1])
    if not ready:
        return
    keys = np.array([name_key(stream, "reflect", t.task_id, t.rollout) for t in ready], dtype=np.uint64)
    completions = policy.generate(texts, keys, sampling)
    for trajectory, text, shortened, completion in zip(ready, texts, cut, completions, strict=True):
        trajectory.reflection = read_reflection(trajectory, text, completion, prompts.fmt, shortened)
