"""Policies without a network: their answers are scripted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from repro_rl.policy.base import ChatSession, SamplingSettings
from repro_rl.policy.token_policy import TokenPolicy
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids

Answer = Callable[[str, int], str]  # (prompt, key) -> text; "…" at its end: it was cut off


class WordText:
    """A PromptText: every word is a token."""

    positions: int | None = None

    def encode(self, prompt: str) -> Ids:
        return tuple(range(len(prompt.split())))


class LetterText:
    """A PromptText: every character is a token."""

    positions: int | None = None

    def encode(self, prompt: str) -> Ids:
        return tuple(map(ord, prompt))


class ScriptedPolicy:
    """A Policy whose answer is a function of prompt and key; in a conversation the prompt is the turn.

    ``calls`` holds the prompts of every call.
    """

    def __init__(self, answer: Answer | str, text: WordText | LetterText | None = None):
        self.answer: Answer = (lambda prompt, key: answer) if isinstance(answer, str) else answer
        self.codec = text or WordText()
        self.calls: list[list[str]] = []

    def generate(
        self,
        prompts: Sequence[str],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        assert len(prompts) == len(keys)
        self.calls.append(list(prompts))
        answers = [self.answer(prompt, int(key)) for prompt, key in zip(prompts, keys, strict=True)]
        return [
            scripted_completion(self.codec.encode(prompt), tuple(range(len(answer.split()))), answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def open_chat(self) -> ChatSession:
        return ScriptedSession(self)


class ScriptedSession:
    """A ChatSession that counts tokens and puts only the newest turn to the policy."""

    def __init__(self, policy: ScriptedPolicy):
        self.policy = policy
        self.open_rows: dict[int, int] = {}  # tokens of each conversation

    def used(self, row: int) -> int:
        return self.open_rows.get(row, 0)

    def size(self, text: str, *, first: bool = False) -> int:
        return len(self.policy.codec.encode(text))

    def most_rows(self, longest: int) -> int | None:
        return None

    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        completions = self.policy.generate(texts, keys, settings, forms)
        for row, completion in zip(rows, completions, strict=True):
            self.open_rows[row] = self.used(row) + completion.prompt_tokens + completion.tokens
        return completions

    def close(self, row: int) -> None:
        self.open_rows.pop(row, None)


class ScriptedTokens(TokenPolicy):
    """A TokenPolicy over whole words, whose answer is a function of the decoded prompt and the key."""

    def __init__(self, words: set[str], answer: Answer):
        self.codec, self.answer = word_codec(words), answer

    def generate_ids(
        self,
        encoded: Sequence[Ids],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        answers = [
            self.answer(self.codec.decode(ids), int(key)) for ids, key in zip(encoded, keys, strict=True)
        ]
        return [
            scripted_completion(ids, self.codec.encode_target(answer)[: settings.max_new_tokens], answer)
            for ids, answer in zip(encoded, answers, strict=True)
        ]


def scripted_completion(prompt_ids: Ids, token_ids: Ids, answer: str) -> Completion:
    """Log-probs of -0.5; an answer with "…" at its end was cut off there."""
    return Completion(
        prompt_ids,
        token_ids,
        np.full(len(token_ids), -0.5, np.float32),
        answer.rstrip("…"),
        not answer.endswith("…"),
        entropy=0.25,
    )


def word_codec(words: set[str]) -> TextCodec:
    """A codec over whole words, as the tiny models have one, without a chat template."""
    vocabulary = ["<pad>", "<eos>", "<unk>", *sorted(words)]
    core: Any = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    return TextCodec(
        PreTrainedTokenizerFast(
            tokenizer_object=core,
            pad_token="<pad>",
            eos_token="<eos>",
            unk_token="<unk>",
            clean_up_tokenization_spaces=False,
        )
    )
