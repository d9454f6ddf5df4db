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
from repro_rl.errors import ConfigError, DataError
from repro_rl.policy.gguf import is_gguf, text_of
from repro_rl.policy.loading.codec import codec_of, load_codec
from repro_rl.policy.tokens.codec import ChatSwitch
from repro_rl.random_streams import name_key
from repro_rl.rollout.context.base import replayed
from repro_rl.rollout.reflection import reflection_prompt
from repro_rl.text.prompts import PromptBuilder
from repro_rl.text.turns import TurnPrompts
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

    def turn_size(self, text: str, *, first: bool = False) -> int:
        """The most tokens that a user turn adds to a conversation."""
        ...


class CharacterCodec:
    """Stands in for an absent tokenizer: so many ids as ``CHARACTERS`` says, all 0."""

    def encode(self, prompt: str) -> Ids:
        return self.plain_ids(prompt)

    def plain_ids(self, text: str) -> Ids:
        return (0,) * round(len(text) / CHARACTERS)

    def turn_size(self, text: str, *, first: bool = False) -> int:
        return len(self.plain_ids(text))


def find_codec(
    given: Path | None, models: Sequence[str | None], chat: ChatSwitch, thinking: bool
) -> tuple[PromptCodec | None, list[str]]:
    """The codec of ``given``, else of the first of ``models`` that has one here; None where none has.

    With it a sentence for each model before that one whose tokenizer is here and cannot be used. Nothing is
    downloaded, and no GGUF file converted. Raises what ``load_codec`` raises for ``given``, and DataError for
    a GGUF file that is damaged or not supported.
    """
    if given is not None:
        return load_codec(given, chat=chat, thinking=thinking, local_only=True), []
    unusable: list[str] = []
    for model in models:
        if model is None or model == "tiny":
            continue
        if is_gguf(model) and Path(model).is_file():
            return codec_of(*text_of(model), chat=chat, thinking=thinking), unusable
        try:
            return load_codec(model, chat=chat, thinking=thinking, local_only=True), unusable
        except Exception as error:  # each of the libraries raises its own
            # A hub name that was not downloaded has no tokenizer here, which is no fault.
            if Path(model).exists() or isinstance(error, ConfigError | DataError):
                unusable.append(f"The tokenizer of {model} cannot be used: {error}")
    return None, unusable


@dataclass(slots=True)
class TokenTable:
    """Token counts of whole episodes, before any prompt is shortened. In a conversation prompts are turns."""

    action: list[int] = field(default_factory=list)  # of every step's prompt
    reflect: list[int] = field(default_factory=list)  # of every episode's reflection prompt
    episode_steps: list[int] = field(default_factory=list)  # steps of every episode
    action_target: list[int] = field(default_factory=list)  # the demonstrated completion, no thought
    reflect_target: list[int] = field(default_factory=list)  # the demonstrated reflection
    shared_prefix: int = 0  # window: tokens that begin every full step prompt, the instructions


def count_tokens(
    env: TextEnv,
    tasks: Sequence[str],
    prompts: PromptBuilder,
    codec: PromptCodec,
    *,
    chat: bool = False,
    noises: Sequence[float] = NOISES,
    seed: int = 0,
) -> TokenTable:
    """One episode of every task and noise. Deterministic in ``seed``.

    ``chat``: an episode is one conversation. Of a guided reflection only the values are sampled; the rest is
    given, and counted with its prompt.
    """
    table = TokenTable()
    if prompts.fmt.style == "full" and not chat:  # compact prompts have no instructions
        table.shared_prefix = len(codec.encode(env.instructions))
    for noise in noises:
        rng = np.random.default_rng(name_key(seed, "tokens", noise))
        for task in tasks:
            trajectory = play(env, task, noise, rng)
            if chat:
                _add_turns(table, env, trajectory, prompts, codec)
            else:
                _add_prompts(table, env, trajectory, prompts, codec)
            _add_answers(table, trajectory, prompts, codec)
            if prompts.guided:
                sampled = trajectory.length * len(codec.plain_ids(str(TARGET_PROGRESS)))
                table.reflect[-1] += table.reflect_target[-1] - sampled
                table.reflect_target[-1] = sampled
    return table


def _add_prompts(
    table: TokenTable, env: TextEnv, trajectory: Trajectory, prompts: PromptBuilder, codec: PromptCodec
) -> None:
    table.action += [len(codec.encode(prompts.act(inputs))) for inputs, _ in replayed(env, trajectory)]
    table.reflect.append(len(codec.encode(reflection_prompt(trajectory, prompts, env.instructions))))


def _add_turns(
    table: TokenTable, env: TextEnv, trajectory: Trajectory, prompts: PromptBuilder, codec: PromptCodec
) -> None:
    turns = TurnPrompts(prompts)
    table.action += [
        codec.turn_size(turns.act(inputs), first=number == 0)
        for number, (inputs, _) in enumerate(replayed(env, trajectory))
    ]
    question = turns.reflect(
        goal=trajectory.goal,
        observation=trajectory.final_observation,
        length=trajectory.length,
        won=trajectory.won,
        score=trajectory.score,
    )
    table.reflect.append(codec.turn_size(question))


def _add_answers(
    table: TokenTable, trajectory: Trajectory, prompts: PromptBuilder, codec: PromptCodec
) -> None:
    table.episode_steps.append(trajectory.length)
    for step in trajectory.steps:
        answer = prompts.action_target(TARGET_PROGRESS, step.action or "none")
        table.action_target.append(len(codec.plain_ids(answer)))
    reflection = prompts.reflection_target([TARGET_PROGRESS] * trajectory.length)
    table.reflect_target.append(len(codec.plain_ids(reflection)))


def share_over(counts: Sequence[int], limit: int) -> float:
    """Share of ``counts`` above ``limit``; 0 for none."""
    return sum(count > limit for count in counts) / len(counts) if counts else 0.0


def quantiles(counts: Sequence[int]) -> tuple[int, int, int]:
    """(Median, 95 % quantile, largest) of the counts, rounded up."""
    values = np.asarray(counts)
    return int(np.ceil(np.median(values))), int(np.ceil(np.quantile(values, 0.95))), int(values.max())
