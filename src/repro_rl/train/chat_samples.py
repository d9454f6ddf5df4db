"""One sample per conversation: every answer trained in its place, with the advantage of its step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repro_rl.text.parse import TextFormat
from repro_rl.train.samples import Decode, trained_parts
from repro_rl.types import Completion, Group, Sample

# A completion, the advantage of each of its tokens (or of all), whether it is the reflection.
Part = tuple[Completion, Sequence[float] | float, bool]


def pack(parts: Sequence[Part], group: int) -> Sample:
    """The turns of one conversation in order, as one sample. Only sampled tokens are trained on.

    The reflection's tokens are marked in ``reflected``: the loss weighs them as reflections.
    """
    length = sum(len(c.prompt_ids) + len(c.token_ids) for c, _, _ in parts)
    sample = Sample(
        ids=np.zeros(length, dtype=np.int64),
        trained=np.zeros(length, dtype=np.bool_),
        advantage=np.zeros(length, dtype=np.float32),
        logprob=np.zeros(length, dtype=np.float32),
        kind="forward",
        group=group,
        reflected=np.zeros(length, dtype=np.bool_),
    )
    assert sample.reflected is not None
    start = 0
    for completion, advantage, reflection in parts:
        answer = start + len(completion.prompt_ids)
        stop = answer + len(completion.token_ids)
        sample.ids[start:answer] = completion.prompt_ids
        sample.ids[answer:stop] = completion.token_ids
        sample.trained[answer:stop] = True
        sample.advantage[answer:stop] = advantage
        sample.logprob[answer:stop] = completion.logprobs
        sample.reflected[answer:stop] = reflection
        start = stop
    return sample


def build_packed(
    groups: Sequence[Group],
    *,
    fmt: TextFormat,
    decode: Decode,
    advantage_on: str,
    progress_advantages: Sequence[Sequence[Sequence[float]]] | None = None,
    reflections: set[tuple[int, int]] | None = None,
) -> list[Sample]:
    """One sample a trajectory. Arguments as in ``build_samples``, whose advantages they carry.

    A reflection that is not trained on is left out: it is the last turn, so nothing else depends on it.
    """
    return [
        pack([(completion, advantage, kind == "reflect") for completion, advantage, kind in parts], g)
        for g, parts in trained_parts(groups, fmt, decode, advantage_on, progress_advantages, reflections)
        if any(completion.token_ids for completion, _, _ in parts)
    ]
