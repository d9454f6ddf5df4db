"""How many tokens the prompts of an environment have: real episodes, rendered and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from repro_rl.demos.collect import play
from repro_rl.envs.base import TextEnv
from repro_rl.random_streams import name_key
from repro_rl.rollout.reflect import reflection_prompt
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Ids, Trajectory

Encode = Callable[[str], Ids]
NOISES = (0.0, 0.5, 1.0)  # shares of random actions: the expert, half of both, random play


@dataclass(slots=True)
class TokenTable:
    """Token counts of played episodes, before anything is shortened."""

    forward: list[int] = field(default_factory=list)  # of every step's prompt
    reflect: list[int] = field(default_factory=list)  # of every episode's reflection prompt
    lengths: list[int] = field(default_factory=list)  # steps of every episode
    forward_target: list[int] = field(default_factory=list)  # the demonstrated completion, no thought
    reflect_target: list[int] = field(default_factory=list)

    def add(self, other: TokenTable) -> None:
        self.forward += other.forward
        self.reflect += other.reflect
        self.lengths += other.lengths
        self.forward_target += other.forward_target
        self.reflect_target += other.reflect_target


def step_prompts(env: TextEnv, trajectory: Trajectory, prompts: PromptBuilder) -> list[str]:
    """The forward prompt of every step, whole; the episode is played again for its admissible actions."""
    _, info = env.reset(options={"task": trajectory.task_id})
    history: list[tuple[str, str]] = []
    texts = []
    for step in trajectory.steps:
        texts.append(
            prompts.forward(
                instructions=env.instructions,
                goal=trajectory.goal,
                observation=step.observation,
                admissible=info["admissible"],
                history=history,
                step=step.t,
                max_steps=env.max_steps,
            )
        )
        history.append((step.observation, step.action))
        info = env.step(step.action)[4]
    return texts


def count_tokens(
    env: TextEnv,
    tasks: Sequence[str],
    prompts: PromptBuilder,
    encode: Encode,
    encode_target: Encode,
    *,
    noises: Sequence[float] = NOISES,
    seed: int = 0,
) -> TokenTable:
    """One episode of every task and noise. Deterministic in ``seed``."""
    table = TokenTable()
    for noise in noises:
        rng = np.random.default_rng(name_key(seed, "tokens", noise))
        for task in tasks:
            trajectory = play(env, task, noise, rng)
            table.lengths.append(trajectory.length)
            texts = step_prompts(env, trajectory, prompts)
            table.forward += [len(encode(text)) for text in texts]
            table.forward_target += [
                len(encode_target(prompts.render_forward_target(50, step.action or "none")))
                for step in trajectory.steps
            ]
            table.reflect.append(len(encode(reflection_prompt(trajectory, prompts, env.instructions))))
            target = prompts.render_reflection_target([50] * trajectory.length)
            table.reflect_target.append(len(encode_target(target)))
    return table


def share_over(counts: Sequence[int], limit: int) -> float:
    """Share of ``counts`` above ``limit``; 0 for none."""
    return sum(count > limit for count in counts) / len(counts) if counts else 0.0


def spread(counts: Sequence[int]) -> tuple[int, int, int]:
    """(Median, 95 % quantile, largest) of the counts, rounded up."""
    values = np.asarray(counts)
    return int(np.ceil(np.median(values))), int(np.ceil(np.quantile(values, 0.95))), int(values.max())
