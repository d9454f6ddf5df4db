"""Tokens and passes of one training iteration, from counted prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro_rl.config import MethodSection, PromptSection, TrainSection
from repro_rl.plan.tokens import TokenTable

THOUGHT_SHARE = 0.5  # of the token limit: a completion's assumed length where thoughts are allowed


@dataclass(frozen=True, slots=True)
class KnownLengths:
    """Mean tokens of completions, where they are known; None: a length is assumed."""

    action: float | None = None
    reflect: float | None = None


@dataclass(frozen=True, slots=True)
class DecodePhase:
    """The decode steps of acting, or of reflecting, in one iteration."""

    steps: float  # forward passes with one new token a row
    rows: float  # in each of them
    context: float  # positions that a row attends to, on average


@dataclass(frozen=True, slots=True)
class Workload:
    """Of one iteration, without validation. Lengths are means over prompts as cut to their limits."""

    episodes: int
    steps: float  # of an episode
    prompt: float  # tokens of a step prompt; chat: of a turn
    completion: float  # tokens of a step completion
    reflect_prompt: float  # tokens; 0 without reflection; chat: of its turn
    reflect_completion: float  # tokens; 0 without reflection
    shared_prefix: float  # of them, those that are computed once for all (chat: a mean)
    longest: int  # tokens of the longest row
    trained_reflections: float
    epochs: int
    optimizer_steps: int
    reference: bool  # every row is also read by the reference model
    update_batch_cells: float  # positions in the largest micro-batch
    update_batch_logits: float  # trained positions in it, from the first trained column on
    decode_batch_cells: float  # positions in the KV cache of the largest generation batch
    prefill_batch_cells: float  # positions of its prompts
    decode_rows: float  # rows of a common generation batch
    decode_phases: tuple[DecodePhase, ...]  # acting; reflecting, if the method does
    acting_context: float  # positions that one of a step prompt attends to, on average
    reflect_context: float  # the same of a reflection prompt
    trained_context: float  # the same of a trained row
    trained_shared: float = 0.0  # positions that the packed forward pass computes only once, an epoch
    packed_logits: float | None = None  # as update_batch_logits, in it or on a GPU; None: the same

    @property
    def action_rows(self) -> float:
        """Forward prompts."""
        return self.episodes * self.steps

    @property
    def prompt_tokens(self) -> float:
        return self.action_rows * self.prompt + self.episodes * self.reflect_prompt

    @property
    def completion_tokens(self) -> float:
        return self.action_rows * self.completion + self.episodes * self.reflect_completion

    @property
    def trained_cells(self) -> float:
        """Positions of one epoch over the samples, nothing merged."""
        acting = self.action_rows * (self.prompt + self.completion)
        return acting + self.trained_reflections * (self.reflect_prompt + self.reflect_completion)

    @property
    def trained_tokens(self) -> float:
        return self.action_rows * self.completion + self.trained_reflections * self.reflect_completion


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of one kind, cut to their limit, and their completions."""

    counts: list[int]  # tokens of each prompt
    completion: float  # mean tokens
    limit: int  # most tokens of a completion

    @property
    def mean(self) -> float:
        return float(np.mean(self.counts))

    @property
    def width(self) -> float:
        """Mean positions of a row: a prompt with a completion of mean length."""
        return float(np.mean([count + self.completion for count in self.counts]))

    @property
    def longest(self) -> float:
        """With a completion of mean length."""
        return max(self.counts) + self.completion

    @property
    def widest(self) -> int:
        """With the longest completion."""
        return max(self.counts) + self.limit

    def decode_phase(self, calls: float, rows: int, max_batch_tokens: int) -> DecodePhase:
        """``calls``: batches of ``rows`` prompts, each split where it exceeds ``max_batch_tokens``."""
        batches = max(1.0, rows * (self.mean + self.limit) / max_batch_tokens)
        return DecodePhase(
            steps=calls * batches * max(self.completion - 1, 0.0),  # prefill gives the first token
            rows=rows / batches,
            context=self.mean + self.completion / 2,
        )


def expected_completion(target: float, limit: int, thinks: bool) -> float:
    """Without thoughts the demonstrated answer; with them half the limit (an assumption, until measured)."""
    return max(target, THOUGHT_SHARE * limit) if thinks else min(target, limit)


def iteration_work(
    table: TokenTable,
    prompt: PromptSection,
    train: TrainSection,
    method: MethodSection,
    max_batch_tokens: int,
    known: KnownLengths = KnownLengths(),
) -> Workload:
    """The work of one iteration; ``max_batch_tokens``: positions of a generation batch."""
    thinks, most, limit = prompt.thinks, prompt.max_prompt_tokens, prompt.action_tokens
    act = cut_prompts(table.action, most, table.action_target, limit, known.action, thinks)
    most, limit = prompt.max_reflect_tokens, prompt.reflect_new_tokens
    reflect = cut_prompts(table.reflect, most, table.reflect_target, limit, known.reflect, thinks)
    episodes, steps = train.groups * train.group_size, float(np.mean(table.episode_steps))
    trained = episodes * method.reflect_share if method.trains_reflections else 0.0
    longest = max(act.longest, reflect.longest) if trained else act.longest
    cells = max(train.micro_tokens, longest)
    logits = cells / act.width * min(act.completion, act.width)  # of common step rows
    if trained:
        logits = max(logits, cells / longest * reflect.completion)
    widest = max(act.widest, reflect.widest if method.reflect else 0)
    decode_cells = min(max(max_batch_tokens, widest), episodes * widest)
    decode_rows = min(max(1.0, max_batch_tokens / (act.mean + act.limit)), float(episodes))
    phases = [act.decode_phase(steps, episodes, max_batch_tokens)]
    if method.reflect:
        phases.append(reflect.decode_phase(1.0, episodes, max_batch_tokens))
    return Workload(
        episodes=episodes,
        steps=steps,
        prompt=act.mean,
        completion=act.completion,
        reflect_prompt=reflect.mean if method.reflect else 0.0,
        reflect_completion=reflect.completion if method.reflect else 0.0,
        shared_prefix=table.shared_prefix,
        longest=int(longest),
        trained_reflections=trained,
        acting_context=act.mean / 2,
        reflect_context=reflect.mean / 2,
        trained_context=trained_width(act, reflect, episodes * steps, trained) / 2,
        epochs=train.epochs,
        optimizer_steps=train.epochs * train.minibatches,
        reference=train.kl.active,
        update_batch_cells=min(cells, episodes * steps * act.width),
        update_batch_logits=logits,
        decode_batch_cells=decode_cells,
        prefill_batch_cells=decode_cells - decode_rows * act.limit,
        decode_rows=decode_rows,
        decode_phases=tuple(phases),
    )


def trained_width(act: Prompts, reflect: Prompts, action_rows: float, trained: float) -> float:
    """Mean positions of a trained row."""
    cells = action_rows * (act.mean + act.completion) + trained * (reflect.mean + reflect.completion)
    return cells / max(action_rows + trained, 1.0)


def cut_prompts(
    counts: Sequence[int], most: int, targets: Sequence[int], limit: int, known: float | None, thinks: bool
) -> Prompts:
    """Prompts of ``counts`` tokens, those over ``most`` shortened to about it.

    ``targets``, ``limit``: tokens of demonstrated completions, and the most of one. ``known``: their mean.
    """
    completion = expected_completion(float(np.mean(targets)), limit, thinks) if known is None else known
    return Prompts([min(count, most) for count in counts], completion, limit)
