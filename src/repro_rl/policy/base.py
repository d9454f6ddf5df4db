"""What a rollout needs from a policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from repro_rl.settings import require
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids

Keys = NDArray[np.uint64]  # [N] the random streams that the N rows of a batch are sampled with


@dataclass(slots=True, frozen=True)
class SamplingSettings:
    """How to sample. Temperature 0 is greedy; log-probs are then those at temperature 1.

    ``top_p`` changes what is drawn, not what is reported. Log-probs and entropy are those of the full
    distribution at this temperature, not of the one left after the filter. A vLLM sampler can only report
    those after the filter.
    """

    max_new_tokens: int  # longest answer, in tokens
    temperature: float = 1.0  # that divides the logits
    top_p: float = 1.0  # share of the probability that tokens are drawn from

    def __post_init__(self) -> None:
        """Raises ConfigError for a value outside its range."""
        require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "1 or more")
        require(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 or more, and finite")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0, up to 1")


@dataclass(slots=True, frozen=True)
class AnswerTokens:
    """What an answer can be sampled from. A model's output layer may be wider than its tokenizer."""

    stop: frozenset[int]  # ids that end an answer
    limit: int  # ids from here on have no token
    size: int  # of the output layer
    holes: tuple[int, ...] = ()  # ids below ``limit`` that have no token

    @property
    def unused(self) -> tuple[int, ...]:
        """All ids that have no token."""
        return (*self.holes, *range(self.limit, self.size))


class PromptText(Protocol):
    """How long texts are for a model."""

    @property
    def positions(self) -> int | None:
        """Tokens that the model can hold; None where that is not known, as behind an API."""
        ...

    def encode(self, prompt: str) -> Ids:
        """Token ids of a prompt as one user turn, template applied; () where only a server knows them."""
        ...


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

    def most_rows(self, longest: int) -> int | None:
        """Conversations of up to ``longest`` tokens that memory holds together; None: unknown."""
        ...

    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """Append a user turn to each of ``rows`` (all different), return the answers; see Policy.generate."""
        ...

    def close(self, row: int) -> None:
        """Forget a conversation and free what is stored for it."""
        ...


class Policy(Protocol):
    """A language model that completes prompts."""

    @property
    def codec(self) -> PromptText:
        """How long texts are for this model."""
        ...

    def generate(
        self,
        prompts: Sequence[str],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """One completion for each prompt.

        ``keys[i]`` names the random stream of row i. The same key and prompt give the same text whatever else
        is in the batch, up to the last bits of floating point. A prompt that the model cannot take gives a
        completion with ``error``. ``forms``: what is given of each answer; None: nothing, they are free text.
        Raises ConfigError for a form that the model's tokenizer, or a server, cannot be held to.
        """
        ...

    def open_chat(self) -> ChatSession:
        """Conversations with this model; valid until the weights change."""
        ...


class Sampler(Policy, Protocol):
    """A policy whose weights follow a trainer's."""

    def before_update(self) -> None:
        """Rollouts are over for now: the sampler may free memory for the update."""
        ...

    def weights_changed(self) -> None:
        """Take over the trainer's present weights; what was computed with the old ones is dropped."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a figure sampled by it depends on, for the manifest."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
