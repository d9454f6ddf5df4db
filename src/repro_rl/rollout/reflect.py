"""The reflection pass: after the episode the same policy judges every step once, knowing the outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repro_rl.policy.base import Policy, SamplingSettings
from repro_rl.random_streams import name_key
from repro_rl.text.parse import parse_reflection
from repro_rl.text.prompts import PromptBuilder, ReflectStep
from repro_rl.types import Completion, Reflection, Trajectory

NO_ANSWER, CUT_OFF = "no_answer", "cut_off"  # defects of a completion, beside those of its text


def reflection_prompt(trajectory: Trajectory, prompts: PromptBuilder, instructions: str) -> str:
    """The reflection prompt of a finished episode: its trajectory and its known outcome."""
    return prompts.reflect(
        instructions=instructions,
        goal=trajectory.goal,
        steps=[
            ReflectStep(
                t=step.t,
                observation_before=step.observation,
                action=step.action,
                feedback=step.feedback,
                brief=step.brief,
            )
            for step in trajectory.steps
        ],
        won=trajectory.won,
        score=trajectory.score,
        first_observation=trajectory.steps[0].observation,
    )


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

    An over-long trajectory gets the defect "prompt_too_long" and no values, one that a server did not answer
    "no_answer"; a rubbish text named defects.
    """
    ready: list[Trajectory] = []
    texts: list[str] = []
    for trajectory in trajectories:
        if not trajectory.steps:
            continue
        text = reflection_prompt(trajectory, prompts, instructions)
        ids = policy.encode(text)
        if len(ids) > max_prompt_tokens:
            empty = Completion(ids[:0], (), np.zeros(0, np.float32), "", False)
            trajectory.reflection = Reflection(text, empty, None, ("prompt_too_long",))
            continue
        ready.append(trajectory)
        texts.append(text)
    if not ready:
        return
    keys = np.array([name_key(stream, "reflect", t.task_id, t.rollout) for t in ready], dtype=np.uint64)
    for trajectory, text, completion in zip(
        ready, texts, policy.generate(texts, keys, sampling), strict=True
    ):
        if completion.error is not None:
            trajectory.reflection = Reflection(text, completion, None, (NO_ANSWER,))
            continue
        parsed = parse_reflection(completion.text, prompts.fmt, len(trajectory.steps))
        defects = parsed.defects if completion.finished else (*parsed.defects, CUT_OFF)
        values = parsed.values if completion.finished else None
        trajectory.reflection = Reflection(text, completion, values, defects)
