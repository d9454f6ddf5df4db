"""Guided answers from vLLM: every token that is sampled is a request of its own.

vLLM's structured output holds an answer to a pattern of characters. Then it samples the fixed parts as well,
in whatever tokens spell them, each from a set of ids that only its grammar knows. A trainer cannot compute
those log-probs. Here a request has one new token and names the ids that it may be (``allowed_token_ids``).
What the server has seen before is in its prefix cache, so a request costs about one decode step. There are
about two for each value instead of about eight (decision D66).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from repro_rl.policy.base import Keys, SamplingSettings
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.tokens.guide import Cursor, token_guide
from repro_rl.policy.vllm.request import too_long
from repro_rl.random_streams import stream_keys
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids

# (prompts, keys, settings, the ids that each new token may be) -> a completion of one token for each.
AskTokens = Callable[[list[Ids], Keys, SamplingSettings, list[Ids]], list[Completion]]


def guided_completions(
    codec: TextCodec,
    encoded: Sequence[Ids],
    keys: Keys,
    settings: SamplingSettings,
    forms: Sequence[GuidedText],
    limit: int,
    ask: AskTokens,
) -> list[Completion]:
    """A completion for each prompt, as ``TokenPolicy.generate_ids``. ``limit``: longest sequence, in tokens.

    ``encoded``: N prompts as ids. ``keys`` [N]: the random stream of each. ``forms``: of each answer.
    The completions' log-probs and ``allowed`` have one entry a token; a given token's log-prob is 0.

    A prompt that leaves too few tokens, or that gets no token, gives a completion with ``error``.
    """
    guides = [token_guide(codec, form) for form in forms]
    cursors = [Cursor(guide) for guide in guides]
    logprobs: list[list[float]] = [[0.0] * len(cursor.ids) for cursor in cursors]
    failed = {
        row: too_long(ids, limit - guide.longest)
        for row, (ids, guide) in enumerate(zip(encoded, guides, strict=True))
        if len(ids) + guide.longest > limit
    }
    one = replace(settings, max_new_tokens=1)
    while live := [row for row, cursor in enumerate(cursors) if not cursor.ended and row not in failed]:
        prompts = [(*encoded[row], *cursors[row].ids) for row in live]
        position = np.array([len(cursors[row].ids) for row in live])
        answers = ask(
            prompts, stream_keys(0, keys[live], position), one, [cursors[row].choices for row in live]
        )
        for row, answer in zip(live, answers, strict=True):
            if answer.error is not None:
                failed[row] = replace(answer, prompt_ids=encoded[row])
                continue
            before = len(cursors[row].ids)
            cursors[row].take(answer.token_ids[0])
            logprobs[row] += [float(answer.logprobs[0]), *[0.0] * (len(cursors[row].ids) - before - 1)]
    return [
        failed[row] if row in failed else _completion(codec, encoded[row], cursor, logprobs[row])
        for row, cursor in enumerate(cursors)
    ]


def _completion(codec: TextCodec, prompt: Ids, cursor: Cursor, logprobs: Sequence[float]) -> Completion:
    """The finished answer of ``cursor``; its entropy is estimated as in ``request.completion_of``."""
    ids, values = tuple(cursor.ids), np.asarray(logprobs, dtype=np.float32)
    done = Completion(prompt, ids, values, codec.decode(ids), True, allowed=tuple(cursor.allowed))
    return replace(done, entropy=float(-values.sum() / max(done.sampled, 1)))
