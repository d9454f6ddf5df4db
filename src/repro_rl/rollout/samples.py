"""From credited trajectories to samples: the sampled ids as they are, never text tokenised again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from repro_rl.credit.settings import AdvantageOn
from repro_rl.text.parse import ActionParse, TextFormat, parse_action
from repro_rl.types import Branch, Completion, Ids, Piece, Sample, Step, TokenKind, Trajectory, part_code

Decode = Callable[[Ids], str]


@dataclass(slots=True, frozen=True)
class TrainedPart:
    """A completion with the advantages and the kind of its tokens."""

    completion: Completion
    advantage: Sequence[float] | float  # of each of its N tokens, or of all
    kind: TokenKind


@dataclass(slots=True, frozen=True)
class SampleFormat:
    """What is needed to find the action inside sampled tokens, and where the step advantage falls."""

    fmt: TextFormat
    decode: Decode
    advantage_on: AdvantageOn  # see CreditSettings


def make_sample(parts: Sequence[TrainedPart], group: int) -> Sample:
    """Prompts and completions, joined in order into one sequence; only sampled tokens are trained on."""
    length = sum(len(part.completion.prompt_ids) + len(part.completion.token_ids) for part in parts)
    sample = Sample(
        ids=np.zeros(length, dtype=np.int64),
        kind=np.zeros(length, dtype=np.int8),
        advantage=np.zeros(length, dtype=np.float32),
        logprob=np.zeros(length, dtype=np.float32),
        group=group,
    )
    if any("teacher" in part.completion.scored for part in parts):
        sample.teacher = np.full(length, np.nan, dtype=np.float32)
    allowed: dict[int, Ids] = {}
    start = 0
    for part in parts:
        completion = part.completion
        answer = start + len(completion.prompt_ids)
        stop = answer + len(completion.token_ids)
        sample.ids[start:answer] = completion.prompt_ids
        sample.ids[answer:stop] = completion.token_ids
        sample.kind[answer:stop] = part.kind
        sample.advantage[answer:stop] = part.advantage
        sample.logprob[answer:stop] = completion.logprobs
        if sample.teacher is not None and "teacher" in completion.scored:
            sample.teacher[answer:stop] = completion.scored["teacher"]
        if completion.allowed is not None:
            for at, ids in enumerate(completion.allowed, answer):
                if len(ids) > 1:
                    allowed[at] = ids
                else:  # it was given
                    sample.kind[at], sample.advantage[at] = TokenKind.CONTEXT, 0
        start = stop
    sample.allowed = allowed
    return sample


def target_sample(parts: Sequence[Piece | tuple[Ids, TokenKind]], branches: Sequence[Branch] = ()) -> Sample:
    """A sequence to imitate, from pieces, or from (ids, kind); advantages and log-probs are 0."""
    pieces = [Piece(*part) for part in parts]
    lengths = [len(piece.ids) for piece in pieces]
    codes = [
        part_code(number, piece.part) if piece.kind and piece.part else 0
        for number, piece in enumerate(pieces, 1)
    ]
    zeros = np.zeros(sum(lengths), dtype=np.float32)
    return Sample(
        ids=np.fromiter((i for piece in pieces for i in piece.ids), dtype=np.int64, count=sum(lengths)),
        kind=np.repeat(np.array([piece.kind for piece in pieces], dtype=np.int8), lengths),
        advantage=zeros,
        logprob=zeros,
        group=0,
        parts=np.repeat(np.array(codes, dtype=np.int64), lengths) if any(codes) else None,
        branches=tuple(branches),
    )


def branch_samples(sample: Sample) -> list[Sample]:
    """The branches of a sample as samples of their own: only what they add is trained."""
    return [
        target_sample([Piece(tuple(sample.ids[: branch.at].tolist()), TokenKind.CONTEXT), *branch.pieces])
        for branch in sample.branches
    ]


def guided_target(context: Ids, answer: Ids, allowed: Sequence[Ids], kind: TokenKind) -> Sample:
    """A guided answer to imitate, after ``context``: of its ids [N] those are trained that could be others.

    ``allowed``: the ids [N] that each could be, as in ``Completion``.
    """
    sample = target_sample([Piece((*context, *answer), TokenKind.CONTEXT)])
    sample.allowed = {at: ids for at, ids in enumerate(allowed, len(context)) if len(ids) > 1}
    sample.kind[list(sample.allowed)] = kind
    return sample


def trained_parts(trajectory: Trajectory, sample_format: SampleFormat) -> list[TrainedPart]:
    """The completions of a trajectory in order, with what they are trained on.

    Steps without sampled tokens are included. A reflection without any, or one not to be trained on, is left
    out.
    """
    parts = [
        TrainedPart(step.completion, step_advantage(step, sample_format), TokenKind.ACT)
        for step in trajectory.steps
    ]
    reflection = trajectory.reflection
    if reflection is not None and reflection.trained and reflection.completion.token_ids:
        parts.append(TrainedPart(reflection.completion, reflection.advantage, TokenKind.REFLECT))
    return parts


def step_advantage(step: Step, sample_format: SampleFormat) -> float | list[float]:
    """The advantage of a step's tokens: of all alike, or of the action apart from the rest."""
    if sample_format.advantage_on == "all" or not sample_format.fmt.progress:
        return step.advantage
    return split_advantage(step.completion, step.progress_advantage, step.advantage, sample_format)


def split_advantage(
    completion: Completion, around: float, action: float, sample_format: SampleFormat
) -> list[float]:
    """[N], one advantage a sampled token: ``action`` in the action part, ``around`` before and behind it.

    An answer without an action part has ``action`` throughout: all of it is why nothing was done.
    """
    ids = completion.token_ids
    parsed = parse_action(completion.text, sample_format.fmt)
    if parsed.action_start >= len(completion.text):
        return [action] * len(ids)
    begin, end = action_span(ids, parsed, sample_format.decode)
    return [around] * begin + [action] * (end - begin) + [around] * (len(ids) - end)


def action_span(ids: Ids, parsed: ActionParse, decode: Decode) -> tuple[int, int]:
    """Where the action part of an answer begins and ends among its tokens: indices into ``ids``.

    ``parsed``: of the answer's text. A token that holds text of two parts belongs to the later one.
    """
    begin = first_token_beyond(ids, parsed.action_start, decode) if parsed.action_start > 0 else 0
    return begin, first_token_beyond(ids, parsed.action_end, decode)


def first_token_beyond(ids: Ids, offset: int, decode: Decode) -> int:
    """Index of the first token whose text reaches beyond character ``offset``; len(ids) when none does."""
    # Decoded prefixes grow with the ids, so a binary search needs only a few of them.
    return bisect_right(range(len(ids)), offset, key=lambda i: len(decode(ids[: i + 1]).rstrip()))
