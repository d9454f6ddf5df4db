"""Conversations with a policy: what a rollout in chat mode needs, and which policy offers it how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from repro_rl.errors import ConfigError
from repro_rl.policy.base import Policy, SamplingSettings
from repro_rl.policy.turns import Conversation, Turns
from repro_rl.types import Completion


class ChatSession(Protocol):
    """Conversations of several episodes, each named by an integer, with one set of weights.

    A completion's ``prompt_ids`` are those its turn added, so a conversation is the ``prompt_ids`` and
    ``token_ids`` of its completions one after another.
    """

    def used(self, row: int) -> int:
        """Tokens of a conversation so far; 0 where only a server knows."""
        ...

    def size(self, text: str, *, first: bool = False) -> int:
        """The most tokens that a user turn can add; 0 where only a server knows."""
        ...

    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
    ) -> list[Completion]:
        """Put a user turn to each of ``rows`` (all different) and return the answers; see Policy.generate."""
        ...

    def close(self, row: int) -> None:
        """Forget a conversation: what is kept for it may go."""
        ...


class TokenChat:
    """Conversations as ids, read again from the start at every turn.

    For policies with ``generate_ids`` that keep nothing themselves, or (engines with a prefix cache) do so
    without being told. What encodes and decodes for such an engine is its ``text``.
    """

    def __init__(self, policy: Any):
        self.policy = policy
        self.turns = Turns(getattr(policy, "text", policy))
        self._rows: dict[int, Conversation] = {}

    def conversation(self, row: int) -> Conversation:
        return self._rows.setdefault(row, Conversation(self.turns))

    def used(self, row: int) -> int:
        return len(self.conversation(row).ids)

    def size(self, text: str, *, first: bool = False) -> int:
        return len(self.turns.first(text) if first else self.turns.following(text))

    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
    ) -> list[Completion]:
        talks = [self.conversation(row) for row in rows]
        turns = [talk.turn(text) for talk, text in zip(talks, texts, strict=True)]
        whole = [(*talk.ids, *turn) for talk, turn in zip(talks, turns, strict=True)]
        completions = self.policy.generate_ids(whole, keys, settings)
        for talk, turn, completion in zip(talks, turns, completions, strict=True):
            if completion.error is None:
                talk.add(turn, completion.token_ids)
        return [replace(c, prompt_ids=turn) for c, turn in zip(completions, turns, strict=True)]

    def close(self, row: int) -> None:
        self._rows.pop(row, None)


def open_chat(policy: Policy) -> ChatSession:
    """A session of ``policy``; it is valid until the weights change.

    A policy with an ``open_chat`` of its own is asked first. Raises ConfigError for a policy that can only
    complete single prompts.
    """
    own = getattr(policy, "open_chat", None)
    if own is not None:
        return own()  # type: ignore[no-any-return]
    if hasattr(policy, "model"):
        from repro_rl.policy.chat_cache import CachedChat, keeps_cache

        if keeps_cache(policy.model):
            return CachedChat(cast(Any, policy))
    if hasattr(policy, "generate_ids"):
        return TokenChat(policy)
    raise ConfigError(f"{type(policy).__name__} cannot hold a conversation; use prompt.context=window.")
