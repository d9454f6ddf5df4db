"""A model behind an API as an agent: it satisfies ``Policy``, but has neither token ids nor log-probs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.chat import ChatSession
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.client import ChatClient, Failure, Question
from repro_rl.types import Completion, Ids


class HttpPolicy:
    """Acts and reflects through ``client``. Completions have neither ids nor log-probs: nothing to train on.

    A question that stays without an answer gives a completion with ``error`` set. Errors that concern every
    call are raised: ApiError, BudgetError.
    """

    def __init__(self, client: ChatClient):
        self.client = client

    def encode(self, prompt: str) -> Ids:
        """Always empty: only the server knows its tokens, and refuses what is too long for it."""
        return ()

    def generate(
        self, prompts: Sequence[str], keys: NDArray[np.uint64], settings: SamplingSettings
    ) -> list[Completion]:
        """See Policy.generate. What was asked before, under the same key, comes from the store."""
        questions = [
            Question(
                (("user", prompt),), settings.max_new_tokens, settings.temperature, settings.top_p, int(key)
            )
            for prompt, key in zip(prompts, keys.tolist(), strict=True)
        ]
        return [completion_of(answer) for answer in self.client.ask(questions)]

    def open_chat(self) -> ChatSession:
        """Conversations as messages; see policy.chat."""
        from repro_rl.policy.http.chat import MessageChat

        return MessageChat(self.client)


def completion_of(answer: Answer | Failure) -> Completion:
    """An answer as a completion without token ids."""
    nothing = np.zeros(0, np.float32)
    if isinstance(answer, Failure):
        return Completion((), (), nothing, "", False, error=answer.reason)
    counted = (answer.prompt_tokens, answer.completion_tokens)
    return Completion((), (), nothing, answer.text, answer.finish != "length", counted=counted)
