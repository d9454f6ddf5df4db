"""How many tokens the prompts of an environment have: real episodes, rendered and counted.

Token ids come from a tokenizer without its model or, where there is none, from the number of characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from repro_rl.demos.collect import play
from repro_rl.envs.base import TextEnv
from repro_rl.policy.text import ChatSwitch, load_text
from repro_rl.random_streams import name_key
from repro_rl.rollout.context.base import replayed
from repro_rl.rollout.reflection import reflection_prompt
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Ids, Trajectory

CHARACTERS = 3.6  # of full prompts for one Qwen token, where there is no tokenizer
NOISES = (0.0, 0.5, 1.0)  # shares of random actions: the expert, half of both, random only
TARGET_PROGRESS = 50  # reported in demonstrated completions, whose length hardly depends on it


class PromptCodec(Protocol):
    """What counting tokens needs of a tokenizer."""

    def encode(self, prompt: str) -> Ids:
        """Ids of a prompt, in the model's chat template where one is used."""
        ...

    def plain_ids(self, text: str) -> Ids:
        """Ids of a text, nothing added."""
        ...


class CharacterCodec:
    """Stands in for an absent tokenizer: so many ids as ``CHARACTERS`` says, all 0."""

    def encode(self, prompt: str) -> Ids:
        return self.plain_ids(prompt)

    def plain_ids(self, text: str) -> Ids:
        return (0,) * round(len(text) / CHARACTERS)


def find_codec(
    given: Path | None, models: Sequence[str | None], chat: ChatSwitch, thinking: bool
) -> PromptCodec | None:
    """The codec of ``given``, else of the first of ``models`` that has one here; None where none has.

    Nothing is downloaded. Raises what ``load_text`` raises for ``given``.
    """
    if given is not None:
        return load_text(given, chat=chat, thinking=thinking, local_only=True)
    for model in models:
        if model is None or model == "tiny":
            continue
        try:
            return load_text(model, chat=chat, thinking=thinking, local_only=True)
        except Exception:  # not here: each of the libraries raises its own
            continue
    return None


@dataclass(slots=True)
class TokenTable:
    """Token counts of whole episodes, before any prompt is shortened."""

    action: list[int] = field(default_factory=list)  # of every step's prompt
    reflect: list[int] = field(default_factory=list)  # of every episode's reflection prompt
    episode_steps: list[int] = field(default_factory=list)  # steps of every episode
    action_target: list[int] = field(default_factory=list)  # the demonstrated completion, no thought
    reflect_target: list[int] = field(default_factory=list)  # the demonstrated reflection
    shared_prefix: int = 0  # tokens that begin every full step prompt: the instructions


def count_tokens(
    env: TextEnv,
    tasks: Sequence[str],
    prompts: PromptBuilder,
    codec: PromptCodec,
    *,
    noises: Sequence[float] = NOISES,
    seed: int = 0,
) -> TokenTable:
    """One episode of every task and noise. Deterministic in ``seed``."""
    table = TokenTable()
    if prompts.fmt.style == "full":  # compact prompts have no instructions
        table.shared_prefix = len(codec.encode(env.instructions))
    for noise in noises:
        rng = np.random.default_rng(name_key(seed, "tokens", noise))
        for task in tasks:
            trajectory = play(env, task, noise, rng)
            _add_episode(table, env, trajectory, prompts, codec)
    return table


def _add_episode(
    table: TokenTable, env: TextEnv, trajectory: Trajectory, prompts: PromptBuilder, codec: PromptCodec
) -> None:
    table.episode_steps.append(trajectory.length)
    table.action += [len(codec.encode(prompts.act(inputs))) for inputs, _ in replayed(env, trajectory)]
    for step in trajectory.steps:
        answer = prompts.action_target(TARGET_PROGRESS, step.action or "none")
        table.action_target.append(len(codec.plain_ids(answer)))
    prompt = reflection_prompt(trajectory, prompts, env.instructions)
    table.reflect.append(len(codec.encode(prompt)))
    reflection = prompts.reflection_target([TARGET_PROGRESS] * trajectory.length)
    table.reflect_target.append(len(codec.plain_ids(reflection)))


def share_over(counts: Sequence[int], limit: int) -> float:
    """Share of ``counts`` above ``limit``; 0 for none."""
    return sum(count > limit for count in counts) / len(counts) if counts else 0.0


def quantiles(counts: Sequence[int]) -> tuple[int, int, int]:
    """(Median, 95 % quantile, largest) of the counts, rounded up."""
    values = np.asarray(counts)
    return int(np.ceil(np.median(values))), int(np.ceil(np.quantile(values, 0.95))), int(values.max())
