"""Tokens and passes of one training iteration in chat mode, where an episode is one growing conversation.

The rollouts of a task begin with the same turn, which is computed once; later turns are read as they come. A
trained row is a whole conversation, with its reflection where that is trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from repro_rl.config import MethodSection, PolicySection, PromptSection, TrainSection
from repro_rl.plan.tokens import TokenTable
from repro_rl.plan.workload import DecodePhase, KnownLengths, Workload, cut_prompts
from repro_rl.rollout.context.base import MAX_LIVE


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Tokens of the counted conversations; turns and answers, the reflection apart."""

    first: float  # mean of first turns
    whole: float  # mean of conversations
    longest: float

    @classmethod
    def of(cls, turns: list[int], steps: list[int], completion: float) -> _Lengths:
        """Of ``turns``, in episodes of so many ``steps``, each with an answer of ``completion`` tokens."""
        ends = np.cumsum(steps)
        parts = np.split(np.asarray(turns, dtype=float), ends[:-1])
        whole = np.array([part.sum() + completion * len(part) for part in parts])
        return cls(
            first=float(np.mean([part[0] for part in parts])),
            whole=float(whole.mean()),
            longest=float(whole.max()),
        )


def conversation_work(
    table: TokenTable,
    prompt: PromptSection,
    policy: PolicySection,
    train: TrainSection,
    method: MethodSection,
    known: KnownLengths,
) -> Workload:
    """The work of one iteration; ``table``: counted with ``chat=True``."""
    thinks, most, limit = prompt.thinks, prompt.max_prompt_tokens, prompt.action_tokens
    act = cut_prompts(table.action, most, table.action_target, limit, known.action, thinks)
    limit = prompt.reflect_new_tokens
    reflect = cut_prompts(table.reflect, most, table.reflect_target, limit, known.reflect, thinks)
    lengths = _Lengths.of(act.counts, table.episode_steps, act.completion)
    episodes, steps = train.groups * train.group_size, float(np.mean(table.episode_steps))
    trained = episodes * method.trained_share
    ending = reflect.mean + reflect.completion
    row = lengths.whole + method.trained_share * ending  # mean trained row
    longest = min(lengths.longest + (ending if method.reflect else 0.0), prompt.max_chat_tokens)
    cells = min(max(train.micro_tokens, longest), episodes * row)
    answers = steps * act.completion + method.trained_share * reflect.completion
    together = min(max(1, int(cells // row)), train.group_size)  # conversations of a task in a micro-batch
    live = min(episodes, MAX_LIVE, max(1, policy.max_cache_tokens // prompt.max_chat_tokens))
    batches, most_steps = math.ceil(episodes / live), max(table.episode_steps)
    phases = [
        # Everybody waits for the longest episode; a turn's last token is read with the answer's first pass.
        DecodePhase(batches * most_steps * act.completion, live * steps / most_steps, lengths.whole / 2)
    ]
    if method.reflect:
        phases.append(DecodePhase(batches * reflect.completion, live, lengths.whole + ending / 2))
    return Workload(
        episodes=episodes,
        steps=steps,
        prompt=act.mean,
        completion=act.completion,
        reflect_prompt=reflect.mean if method.reflect else 0.0,
        reflect_completion=reflect.completion if method.reflect else 0.0,
        shared_prefix=lengths.first * (1 - 1 / train.group_size) / steps,
        longest=int(longest),
        trained_reflections=trained,
        epochs=train.epochs,
        optimizer_steps=train.epochs * train.minibatches,
        reference=train.kl.active,
        update_batch_cells=cells,
        update_batch_logits=cells * (1 - lengths.first / row),  # from the first answer on
        decode_batch_cells=live * longest,
        prefill_batch_cells=live * lengths.first / train.group_size,
        decode_rows=float(live),
        decode_phases=tuple(phases),
        acting_context=lengths.whole / 2,
        reflect_context=lengths.whole,
        trained_context=row / 2,
        trained_shared=lengths.first * episodes * (1 - 1 / together),
        packed_logits=cells * answers / row,
    )
