"""Tokens and passes of one training iteration, from counted prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro_rl.config import RunConfig
from repro_rl.plan.tokens import TokenTable

THOUGHT_SHARE = 0.5  # of the token limit: a completion's assumed length where thoughts are allowed


@dataclass(frozen=True, slots=True)
class Workload:
    """Of one iteration; validation apart. Lengths are means over prompts as cut to their limits."""

    episodes: int
    steps: float  # an episode
    prompt: float  # tokens of a forward prompt
    completion: float
    reflect_prompt: float  # 0 without reflection
    reflect_completion: float
    shared: float  # of a forward prompt, computed once: the instructions
    longest: int  # tokens of the longest row
    trained_reflections: float
    epochs: int
    reference: bool
    update_batch_cells: float  # largest micro-batch
    update_batch_logits: float  # trained positions in it, from the first trained column on
    decode_batch_cells: float  # positions in the cache of the largest generation batch
    prefill_batch_cells: float
    decode_rows: float

    @property
    def forward_rows(self) -> float:
        return self.episodes * self.steps

    @property
    def prompt_tokens(self) -> float:
        return self.forward_rows * self.prompt + self.episodes * self.reflect_prompt

    @property
    def completion_tokens(self) -> float:
        return self.forward_rows * self.completion + self.episodes * self.reflect_completion

    @property
    def trained_cells(self) -> float:
        """Positions of one epoch over the samples, nothing merged."""
        forward = self.forward_rows * (self.prompt + self.completion)
        return forward + self.trained_reflections * (self.reflect_prompt + self.reflect_completion)

    @property
    def trained_tokens(self) -> float:
        return self.forward_rows * self.completion + self.trained_reflections * self.reflect_completion


def expected_completion(target: float, cap: int, thinks: bool) -> float:
    """Without thoughts the demonstrated answer; with them half the limit (an assumption, until measured)."""
    return max(target, THOUGHT_SHARE * cap) if thinks else min(target, cap)


def workload_of(
    config: RunConfig,
    table: TokenTable,
    *,
    shared: float = 0.0,
    completion: float | None = None,
    reflect_completion: float | None = None,
) -> Workload:
    """The work of one iteration. ``completion`` and ``reflect_completion`` replace the assumed lengths."""
    prompt, train, method = config.prompt, config.train, config.method
    thinks = prompt.style == "full" and prompt.think != "off"
    forward = _cut(table.forward, prompt.max_prompt_tokens)
    reflect = _cut(table.reflect, prompt.max_reflect_tokens)
    answer = expected_completion(float(np.mean(table.forward_target)), prompt.action_tokens, thinks)
    judged = expected_completion(float(np.mean(table.reflect_target)), prompt.reflect_new_tokens, thinks)
    answer = answer if completion is None else completion
    judged = judged if reflect_completion is None else reflect_completion
    episodes = train.groups * train.group_size
    rows = [value + answer for value in forward]
    trained = episodes * method.reflect_share if method.trains_reflections else 0.0
    longest = float(max(rows))
    if trained:
        longest = max(longest, max(reflect) + judged)
    shortest = float(np.mean(rows))
    cells = max(train.micro_tokens, longest)
    at_once = cells / shortest  # rows in a micro-batch of common rows
    logits = max(at_once * min(answer, shortest), cells / longest * judged if trained else 0.0)
    widest = max(
        max(forward) + prompt.action_tokens,
        max(reflect) + prompt.reflect_new_tokens if method.reflect else 0,
    )
    playing = float(np.mean(forward)) + prompt.action_tokens
    rows_at_once = min(max(1.0, config.policy.max_batch_tokens / playing), float(episodes))
    return Workload(
        episodes=episodes,
        steps=float(np.mean(table.lengths)),
        prompt=float(np.mean(forward)),
        completion=answer,
        reflect_prompt=float(np.mean(reflect)) if method.reflect else 0.0,
        reflect_completion=judged if method.reflect else 0.0,
        shared=shared,
        longest=int(longest),
        trained_reflections=trained,
        epochs=train.epochs,
        reference=train.kl.active,
        update_batch_cells=min(cells, episodes * float(np.mean(table.lengths)) * shortest),
        update_batch_logits=logits,
        decode_batch_cells=min(max(config.policy.max_batch_tokens, widest), episodes * widest),
        prefill_batch_cells=min(max(config.policy.max_batch_tokens, widest), episodes * widest)
        - rows_at_once * prompt.action_tokens,
        decode_rows=rows_at_once,
    )


def _cut(counts: Sequence[int], limit: int) -> list[int]:
    """Prompts over the limit are shortened to about it."""
    return [min(count, limit) for count in counts]
