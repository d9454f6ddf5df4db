"""The base of all token-in-token-out policies, and conversations with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from repro_rl.policy.base import ChatSession, Keys, SamplingSettings
from repro_rl.policy.tokens.codec import Conversation, TextCodec
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids, no_completion


class TokenPolicy(ABC):
    """A token-in-token-out policy. ``codec`` encodes and decodes for it."""

    codec: TextCodec

    @abstractmethod
    def generate_ids(
        self,
        encoded: Sequence[Ids],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """As ``Policy.generate``, for prompts that are token ids already."""

    def generate(
        self,
        prompts: Sequence[str],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        return self.generate_ids([self.codec.encode(prompt) for prompt in prompts], keys, settings, forms)

    def open_chat(self) -> ChatSession:
        """Conversations that give the policy all ids again at every turn."""
        return TokenSession(self)


def over_positions(codec: TextCodec, prompt: Ids, used: int, settings: SamplingSettings) -> Completion | None:
    """A completion with ``error`` where an answer could run past the positions of the model; else None.

    ``prompt``: what the completion shows as its prompt; ``used``: all tokens before the answer.
    """
    needed = used + settings.max_new_tokens
    if codec.positions is None or needed <= codec.positions:
        return None
    error = (
        f"prompt_too_long: {used} tokens and {settings.max_new_tokens} new ones are more than the "
        f"{codec.positions} positions of the model"
    )
    return replace(no_completion(), prompt_ids=prompt, finished=False, error=error)


class Conversations:
    """The ids of several conversations, each named by an integer: what every session keeps."""

    def __init__(self, codec: TextCodec):
        self.codec = codec
        self._conversations: dict[int, Conversation] = {}

    def conversation(self, row: int) -> Conversation:
        """The conversation named ``row``, a new one where there is none."""
        return self._conversations.setdefault(row, Conversation(self.codec))

    def used(self, row: int) -> int:
        return len(self.conversation(row).ids)

    def size(self, text: str, *, first: bool = False) -> int:
        return self.codec.turn_size(text, first=first)

    def most_rows(self, longest: int) -> int | None:
        """See ChatSession."""
        return None

    def close(self, row: int) -> None:
        self._conversations.pop(row, None)


class CachedConversations(Conversations, ABC):
    """Conversations whose KV cache is kept between turns: a turn runs its own tokens and the answer's."""

    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """See ChatSession. A turn that does not fit the model's positions gets an error, and is left out."""
        turns = [self.conversation(row).turn(text) for row, text in zip(rows, texts, strict=True)]
        out = [
            over_positions(self.codec, turn, self.used(row) + len(turn), settings)
            for row, turn in zip(rows, turns, strict=True)
        ]
        fitting = [i for i, refused in enumerate(out) if refused is None]
        if fitting:
            asked = None if forms is None else [forms[i] for i in fitting]
            answered = self._answer(
                [rows[i] for i in fitting], [turns[i] for i in fitting], keys[fitting], settings, asked
            )
            for i, completion in zip(fitting, answered, strict=True):
                self.conversation(rows[i]).add(turns[i], completion.token_ids)
                out[i] = completion
        return [completion for completion in out if completion is not None]

    @abstractmethod
    def _answer(
        self,
        rows: Sequence[int],
        turns: Sequence[Ids],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None,
    ) -> list[Completion]:
        """Answers to these turns [N], which fit; they are not part of their conversations yet."""


class TokenSession(Conversations):
    """Conversations as ids, which the policy gets whole at every turn. See ChatSession.

    For policies that keep no KV cache between turns, and for engines with a prefix cache of their own.
    """

    def __init__(self, policy: TokenPolicy):
        super().__init__(policy.codec)
        self.policy = policy

    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """See ChatSession. A turn without an answer is not part of its conversation."""
        conversations = [self.conversation(row) for row in rows]
        turns = [c.turn(text) for c, text in zip(conversations, texts, strict=True)]
        prompts = [(*c.ids, *turn) for c, turn in zip(conversations, turns, strict=True)]
        completions = self.policy.generate_ids(prompts, keys, settings, forms)
        for conversation, turn, completion in zip(conversations, turns, completions, strict=True):
            if completion.error is None:
                conversation.add(turn, completion.token_ids)
        return [replace(c, prompt_ids=turn) for c, turn in zip(completions, turns, strict=True)]
