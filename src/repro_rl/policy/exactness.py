"""Are sampled log-probs those that the model computes? Measured on the model itself.

Policy gradients need the log-probs of the sampled tokens. Padding, shared prefixes and KV caches must not
change them, whatever else is in the batch. ``model.capabilities`` knows from code and configuration what is
exact; this module tries it out, in both contexts, on prompts of unequal length that begin alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.errors import CheckpointError, ReproError, clause
from repro_rl.policy.base import ChatSession, Keys, SamplingSettings
from repro_rl.policy.loading.hub import reason_of
from repro_rl.policy.model.adapter import base_model
from repro_rl.policy.model.capabilities import Batching, do_without_cache
from repro_rl.policy.model.memory import LOADING, memory_explained
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.random_streams import name_key
from repro_rl.types import Completion, Ids

SENTENCE = (
    "you are in a small room with two doors and a desk and on the desk you see a red book and a green lamp "
    "so what do you do next"
)
SHARED = 20  # words that the longer prompts have in common
TAILS = (2, 5, 11)  # words that follow them
# Mean difference of log-probs, nats, from which a model is refused. SmolLM2-135M rounds to 3e-6 in float32
# and to .03 in bfloat16; a wrong mask costs more.
REFUSED = 3e-4
REFUSED_HALF = 0.3


class ExactPolicy(Protocol):
    """What the measurements need of a policy whose model is in this process."""

    model: Any
    codec: TextCodec
    mixed: bool  # forward passes run under bfloat16 autocast

    @property
    def device(self) -> torch.device: ...

    def precision(self) -> AbstractContextManager[Any]: ...

    def generate_ids(
        self, encoded: Sequence[Ids], keys: Keys, settings: SamplingSettings
    ) -> list[Completion]: ...

    def open_chat(self) -> ChatSession: ...


@dataclass(slots=True, frozen=True)
class Deviation:
    """Sampled log-probs beside computed ones."""

    largest: float  # |difference| of one token, nats
    mean: float
    tokens: int

    def __str__(self) -> str:
        return f"{self.largest:.1e} at most, {self.mean:.1e} on average ({self.tokens} tokens)"


def probe_texts(codec: TextCodec) -> list[str]:
    """Prompts of unequal length: three with a common beginning and a short one, in words of ``codec``.

    A word-level tokenizer knows few; then they are words of its vocabulary. Three turns fit into the model's
    positions twice.
    """
    words = SENTENCE.split()
    if codec.unknown_words(SENTENCE):
        words = _vocabulary_words(codec) or words
    limit = (codec.positions or 4096) // 6
    shared = SHARED
    while shared > 1 and len(codec.encode(_prompt(words, shared, max(TAILS)))) > limit:
        shared -= 1
    return [_prompt(words, shared, size) for size in TAILS] + [_prompt(words[3:], 0, 4)]


def _prompt(words: Sequence[str], shared: int, rest: int) -> str:
    """``shared`` words, repeated if there are fewer, and as many others again from the end."""
    repeated = list(words) * (1 + (shared + rest) // len(words))
    return " ".join(repeated[:shared] + repeated[::-1][:rest])


def sampled_answers(policy: ExactPolicy, prompts: Sequence[Ids], new_tokens: int) -> list[Completion]:
    """Answers of at most ``new_tokens`` to single prompts, sampled together; always the same ones."""
    return policy.generate_ids(prompts, _keys(len(prompts), "window"), SamplingSettings(new_tokens))


def window_deviation(policy: ExactPolicy, prompts: Sequence[Ids], new_tokens: int) -> Deviation:
    """Of answers to single prompts that are sampled together."""
    return _deviation(policy, [[answer] for answer in sampled_answers(policy, prompts, new_tokens)])


def chat_deviation(policy: ExactPolicy, texts: Sequence[str], new_tokens: int) -> Deviation:
    """Of conversations of three turns: the texts in turn, two conversations that begin alike.

    One conversation ends after the second turn, so that rows leave the batch.
    """
    settings = SamplingSettings(new_tokens)
    session = policy.open_chat()
    rows = [*range(len(texts)), len(texts)]
    first = [*texts, texts[0]]
    answers: list[list[Completion]] = [[] for _ in rows]
    for turn in range(3):
        if turn == 2:
            session.close(0)
        active = rows if turn < 2 else rows[1:]
        users = first if turn == 0 else [texts[(row + turn) % len(texts)] for row in rows]
        got = session.answer(active, [users[row] for row in active], _keys(len(active), turn), settings)
        for row, completion in zip(active, got, strict=True):
            answers[row].append(completion)
    for row in rows[1:]:
        session.close(row)
    return _deviation(policy, answers)


def is_half(policy: ExactPolicy) -> bool:
    """Whether forward passes compute in half precision."""
    return policy.mixed or policy.model.dtype.itemsize < 4


@torch.no_grad()
def logprobs_of(policy: ExactPolicy, ids: Ids) -> NDArray[np.float32]:
    """[L, V] after every token, by one plain pass of the model over this row alone, without a cache."""
    with policy.precision():
        rows = torch.tensor([ids], device=policy.device)
        logits = policy.model(input_ids=rows, use_cache=False).logits[0]
    logprobs: NDArray[np.float32] = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
    return logprobs


def check_exact(policy: ExactPolicy, name: object) -> None:
    """Try out a model before anything is spent. ``name`` is what messages call it.

    One whose code fails with a KV cache, or is not exact with it, is sampled without one from now on. A
    warning says so. Raises CheckpointError where that is not exact either, and for kinds of models that are
    known to be wrong.
    """
    config = base_model(policy.model).config
    architecture = type(base_model(policy.model)).__name__
    known = _known_problem(config)
    if known is not None:
        raise CheckpointError(f"{name} ({architecture}) {known}")
    prompts = [policy.codec.plain_ids(text) for text in probe_texts(policy.codec)[:2]]
    problem = _sampling_problem(policy, prompts)
    if problem is None:
        return
    do_without_cache(policy.model, f"with a KV cache {problem}")
    if _sampling_problem(policy, prompts) is None:
        warnings.warn(
            f"{name} ({architecture}) is sampled {Batching.UNCACHED.value}. With a KV cache {problem}.",
            stacklevel=2,
        )
        return
    raise CheckpointError(
        f"{name} ({architecture}) cannot be sampled here, with a KV cache or without: {problem}. Training on "
        "that would be wrong. Use an architecture that docs/architectures.md lists, or policy.backend=vllm."
    )


def _known_problem(config: Any) -> str | None:
    """Why models with this configuration are refused before any trial; None where they are not."""
    if config.model_type == "rwkv" and config.rescale_every:
        return (
            "divides its weights when it is evaluated, so a checkpoint would be another model. Set "
            f"rescale_every from {config.rescale_every} to 0 in its config.json: only float16 needs it."
        )
    if config.model_type == "reformer":
        return (
            "attends to random groups of tokens, or to chunks that fill only at some lengths, so its "
            "log-probs do not repeat. Use an architecture that docs/architectures.md lists."
        )
    return None


def _sampling_problem(policy: ExactPolicy, prompts: Sequence[Ids]) -> str | None:
    """What is wrong with a short trial, as half a sentence; None where it is exact."""
    try:
        with memory_explained("trying out the model", LOADING):
            measured = window_deviation(policy, prompts, 3)
    except ReproError:
        raise
    except Exception as error:  # whatever the model's code raises
        return f"its code fails: {type(error).__name__}: {clause(reason_of(error))}"
    if measured.mean <= (REFUSED_HALF if is_half(policy) else REFUSED):
        return None
    return f"the sampled log-probs are not those of the model: they differ by {measured}"


def _deviation(policy: ExactPolicy, conversations: Sequence[Sequence[Completion]]) -> Deviation:
    """Of all answers; a conversation is the prompt ids and token ids of its completions one after another."""
    differences: list[NDArray[np.float64]] = []
    for answers in conversations:
        ids: list[int] = []
        spans: list[tuple[int, Completion]] = []
        for answer in answers:
            ids += answer.prompt_ids
            spans.append((len(ids), answer))
            ids += answer.token_ids
        computed = logprobs_of(policy, tuple(ids))
        for start, answer in spans:
            rows = np.arange(start - 1, start - 1 + len(answer.token_ids))
            difference = computed[rows, list(answer.token_ids)] - answer.logprobs.astype(np.float64)
            differences.append(np.abs(difference))
    every = np.concatenate(differences)
    return Deviation(float(every.max()), float(every.mean()), len(every))


def _vocabulary_words(codec: TextCodec) -> list[str]:
    """Words of a word-level tokenizer."""
    words = sorted(codec.tokenizer.get_vocab())
    return [word for word in words if word.isalnum() and not codec.unknown_words(word)]


def _keys(count: int, name: object) -> Keys:
    return np.array([name_key("exactness", name, row) for row in range(count)], dtype=np.uint64)
