"""What both vLLM samplers share: the fields of a request, and the completion made of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from repro_rl.policy.base import AnswerTokens, SamplingSettings
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.types import Completion, Ids

LOWEST_BIAS = -100.0  # vLLM cuts off what is lower


def sampling_fields(
    settings: SamplingSettings, key: int, tokens: AnswerTokens, allowed: Ids | None = None
) -> dict[str, Any]:
    """Sampling parameters of one request, under the names that vLLM's engine and server share.

    All that shapes the distribution is named, since a server fills in what is left out from the model's
    generation_config.json. The seed is a function of the row's stream alone, so a sample does not depend on
    what else is in the batch. The end-of-text ids are ours: vLLM knows fewer of them. Ids that no token has
    get the lowest bias there is, which leaves them a factor of e^-100. A list of all other ids would be sent
    with every request. ``allowed``: the ids that may be sampled; None: all.
    """
    unused = tokens.unused if allowed is None else ()
    fields: dict[str, Any] = {
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": key >> 1,  # it wants 63 bits
        "logprobs": 0,  # of the sampled token alone
        "stop_token_ids": sorted(tokens.stop),
        "ignore_eos": True,
        **({"logit_bias": dict.fromkeys(unused, LOWEST_BIAS)} if unused else {}),
    }
    return fields if allowed is None else fields | {"allowed_token_ids": list(allowed)}


def completion_of(
    codec: TextCodec,
    prompt: Ids,
    ids: Sequence[int],
    logprobs: Sequence[float],
    allowed: Ids | None = None,
) -> Completion:
    """A completion of sampled ids. Its entropy is an estimate: minus the mean log-prob of what was drawn.

    Raises ValueError naming what cannot be trained on.
    """
    vocabulary = codec.vocabulary_size
    if not ids or len(ids) != len(logprobs):
        raise ValueError(f"{len(ids)} token ids and {len(logprobs)} log-probs came back")
    if not all(isinstance(i, int) and 0 <= i < vocabulary for i in ids):
        raise ValueError(f"a token id is not one of the vocabulary's {vocabulary}")
    if allowed is not None and not set(ids) <= set(allowed):
        raise ValueError(f"token {ids[0]} is not one of the allowed_token_ids {list(allowed)}")
    values = np.asarray(logprobs, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a log-prob is not finite")
    sampled = tuple(ids)
    return Completion(
        prompt_ids=prompt,
        token_ids=sampled,
        logprobs=values,
        text=codec.decode(sampled),
        finished=sampled[-1] in codec.eos_ids,
        entropy=float(-values.mean()),
    )


def too_long(prompt: Ids, limit: int) -> Completion:
    """Stands for a prompt that leaves no tokens for an answer: data, not a crash."""
    reason = f"the prompt has {len(prompt)} tokens, the sampler takes fewer than {limit} (max_model_len)"
    return Completion(prompt, (), np.zeros(0, np.float32), "", False, error=reason)


def fitting(prompt: Ids, settings: SamplingSettings, limit: int) -> SamplingSettings:
    """``settings`` with at most the new tokens that ``limit`` leaves for an answer."""
    budget = limit - len(prompt)
    if budget >= settings.max_new_tokens:
        return settings
    return SamplingSettings(budget, settings.temperature, settings.top_p)
