"""From credited groups to samples: the sampled ids as they are, never re-tokenised text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from repro_rl.text.parse import TextFormat, parse_forward
from repro_rl.types import Completion, Group, Ids, Sample

Decode = Callable[[Ids], str]
# A completion, the advantage of each of its tokens (or of all), its kind.
TrainedPart = tuple[Completion, Sequence[float] | float, str]


def make_sample(completion: Completion, advantage: Sequence[float] | float, kind: str, group: int) -> Sample:
    """One sample from a completion; ``advantage`` is a scalar or one value for each sampled token."""
    prompt, sampled = len(completion.prompt_ids), len(completion.token_ids)
    length = prompt + sampled
    ids = np.fromiter((*completion.prompt_ids, *completion.token_ids), dtype=np.int64, count=length)
    trained = np.zeros(length, dtype=np.bool_)
    trained[prompt:] = True
    values = np.zeros(length, dtype=np.float32)
    values[prompt:] = advantage
    logprob = np.zeros(length, dtype=np.float32)
    logprob[prompt:] = completion.logprobs
    return Sample(ids=ids, trained=trained, advantage=values, logprob=logprob, kind=kind, group=group)


def token_reaching(ids: Ids, offset: int, decode: Decode) -> int:
    """Index of the first token whose text reaches beyond character ``offset``; len(ids) when none does."""
    # Decoded prefixes grow with the ids, so a binary search needs only a few of them.
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(decode(ids[: middle + 1]).rstrip()) > offset:
            high = middle
        else:
            low = middle + 1
    return low


def split_advantage(
    completion: Completion, around: float, action: float, fmt: TextFormat, decode: Decode
) -> list[float]:
    """One advantage a sampled token: ``action`` in the action part, ``around`` in thought and report."""
    ids, parsed = completion.token_ids, parse_forward(completion.text, fmt)
    begin = token_reaching(ids, parsed.action_start, decode) if parsed.action_start > 0 else 0
    end = token_reaching(ids, parsed.action_end, decode)
    return [around] * begin + [action] * (end - begin) + [around] * (len(ids) - end)


def build_samples(
    groups: Sequence[Group],
    *,
    fmt: TextFormat,
    decode: Decode,
    advantage_on: str,
    progress_advantages: Sequence[Sequence[Sequence[float]]] | None = None,
    reflections: set[tuple[int, int]] | None = None,
) -> list[Sample]:
    """Forward samples of every step, and reflection samples.

    ``advantage_on``: "all" puts the step advantage on every sampled token; "action" leaves 0 on the tokens
    outside the action part; "split" puts ``progress_advantages[group][trajectory][step]`` there.
    ``reflections`` limits which (group, trajectory) reflections are trained on; None takes all.
    """
    samples: list[Sample] = []
    for g, parts in trained_parts(groups, fmt, decode, advantage_on, progress_advantages, reflections):
        for completion, advantage, kind in parts:
            if completion.token_ids:
                samples.append(make_sample(completion, advantage, kind, g))
    return samples


def trained_parts(
    groups: Sequence[Group],
    fmt: TextFormat,
    decode: Decode,
    advantage_on: str,
    progress_advantages: Sequence[Sequence[Sequence[float]]] | None,
    reflections: set[tuple[int, int]] | None,
) -> Iterator[tuple[int, list[TrainedPart]]]:
    """Of every trajectory: its group, and its completions in order with what they are trained on.

    Arguments as in ``build_samples``. Steps without sampled tokens are among them, reflections without any
    or not to be trained on are not.
    """
    for g, group in enumerate(groups):
        for i, trajectory in enumerate(group.trajectories):
            parts: list[TrainedPart] = []
            for s, step in enumerate(trajectory.steps):
                advantage: float | list[float] = step.advantage
                if advantage_on != "all" and fmt.progress:
                    around = progress_advantages[g][i][s] if progress_advantages is not None else 0.0
                    advantage = split_advantage(step.completion, around, step.advantage, fmt, decode)
                parts.append((step.completion, advantage, "forward"))
            reflection = trajectory.reflection
            if (
                reflection is not None
                and reflection.completion.token_ids
                and (reflections is None or (g, i) in reflections)
            ):
                parts.append((reflection.completion, reflection.advantage, "reflect"))
            yield g, parts


def progress_token_advantages(groups: Sequence[Group]) -> list[list[list[float]]]:
    """For advantage_on "split": each step's alignment, format and boundary terms minus their group mean.

    As in assign_credit, a trajectory with ``error`` set gets 0 and no part in the mean.
    """
    out = []
    for group in groups:
        rows = [
            [
                sum(step.terms.get(term, 0.0) for term in ("alignment", "format", "boundary"))
                for step in t.steps
            ]
            for t in group.trajectories
        ]
        known = [t.error is None for t in group.trajectories]
        flat = [value for row, ok in zip(rows, known, strict=True) if ok for value in row]
        mean = sum(flat) / len(flat) if flat else 0.0
        out.append(
            [[value - mean if ok else 0.0 for value in row] for row, ok in zip(rows, known, strict=True)]
        )
    return out
