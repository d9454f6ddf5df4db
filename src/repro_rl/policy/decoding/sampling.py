"""The sampling loop: from logits to tokens, one decode step after another, rows leaving as they finish.

Rows whose contexts are equal share one branch of the decoder until they sample different tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.errors import NonFiniteError
from repro_rl.policy.base import AnswerTokens, Keys, SamplingSettings
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.random_streams import uniforms
from repro_rl.types import Completion, Ids

# Of each of A rows: its next token, the token's log-prob, the entropy of what it was drawn from.
Drawn = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]

# Tokens that top-p orders first: sorting all of a large vocabulary takes as long as the model's own pass.
TOP_P_CANDIDATES = 1024
DRAW_BYTES = 64 << 20  # of float64 running sums at a time while sampling


@dataclass(slots=True, frozen=True)
class DecodeBatch:
    """The next decode step: B distinct contexts, each one token longer, and the A rows that sample them."""

    parent: NDArray[np.int64]  # [B] the branch of the last step that each continues
    token: NDArray[np.int64]  # [B] the token it appends
    rows: NDArray[np.int64]  # [A] rows of the batch that still sample, ascending
    branch: NDArray[np.int64]  # [A] the branch of each


class Decoder(Protocol):
    """A model with the KV cache of one batch under way."""

    def advance(self, branches: DecodeBatch) -> torch.Tensor:
        """Logits [B, V] after the token that each branch appends."""
        ...


@runtime_checkable
class BlockDecoder(Decoder, Protocol):
    """A decoder that can append several tokens at once."""

    def takes(self, lengths: Sequence[int]) -> bool:
        """Whether one step can append blocks of these ``lengths``, one to each branch."""
        ...

    def advance_blocks(self, branches: DecodeBatch, blocks: Sequence[Ids]) -> torch.Tensor:
        """As ``advance``, but each branch appends its block [B], which begins with its token."""
        ...


class Plan(Protocol):
    """Stands for free sampling where answers are partly given: see ``decoding.guided``."""

    def draw(
        self,
        logits: torch.Tensor,
        branch: NDArray[np.int64],
        active: NDArray[np.int64],
        keys: Keys,
        settings: SamplingSettings,
    ) -> Drawn:
        """The next token of each of the rows ``active`` [A], sampled or given. ``keys``: of all rows."""
        ...

    def follow(self, decoder: Decoder, active: NDArray[np.int64]) -> tuple[list[Ids], NDArray[np.bool_]]:
        """What is given behind the tokens drawn last, of each row [A], and whether its answer has ended."""
        ...

    def complete(self, rows: list[SampledRow]) -> list[SampledRow]:
        """The answers with what was given before their first token, and what each token was drawn from."""
        ...


@dataclass(slots=True, frozen=True)
class SampledRow:
    """The tokens of one answer."""

    token_ids: Ids  # [N]
    logprobs: NDArray[np.float32]  # [N]
    entropy: float  # mean over the tokens that were sampled, nats
    finished: bool  # it ended with a stop token
    allowed: tuple[Ids, ...] | None = None  # see Completion

    def completion(self, prompt_ids: Ids, codec: TextCodec) -> Completion:
        """The answer to ``prompt_ids``, decoded."""
        return Completion(
            prompt_ids=prompt_ids,
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            text=codec.decode(self.token_ids),
            finished=self.finished,
            entropy=self.entropy,
            allowed=self.allowed,
        )


@dataclass(slots=True, frozen=True)
class BatchSampling:
    """How the answers of one batch are sampled."""

    settings: SamplingSettings
    allowed: AnswerTokens  # the ids that may be drawn, and those that end an answer
    model_name: str = "the model"  # for messages
    plan: Plan | None = None  # what is given and what is sampled; None: all, from the whole vocabulary


def sample_rows(
    decoder: Decoder, logits: torch.Tensor, branch: NDArray[np.int64], keys: Keys, batch: BatchSampling
) -> list[SampledRow]:
    """Sample every row until a stop token or the length limit.

    ``logits`` [B, V] are those after the prompts, ``branch`` [rows] says which of them a row samples from.
    ``keys``: of the rows. The decoder is not asked for logits after the last token of an answer. Raises
    NonFiniteError, naming the model, for logits that are NaN or infinite.
    """
    settings, plan = batch.settings, batch.plan
    rows = len(branch)
    tokens: list[list[int]] = [[] for _ in range(rows)]
    logprobs: list[list[float]] = [[] for _ in range(rows)]
    entropies = np.zeros(rows)
    finished = np.zeros(rows, dtype=bool)
    active = np.arange(rows)
    stop_ids = list(batch.allowed.stop)
    for index in range(settings.max_new_tokens):
        if plan is None:
            uniform = uniforms(keys[active], index)
            chosen, logprob, entropy = sample_tokens(logits, branch, uniform, settings, batch.allowed)
        else:
            chosen, logprob, entropy = plan.draw(logits, branch, active, keys, settings)
        check_finite_entropy(entropy, batch.model_name)
        for row, token, value in zip(active.tolist(), chosen.tolist(), logprob.tolist(), strict=True):
            tokens[row].append(token)
            logprobs[row].append(value)
        entropies[active] += entropy
        blocks: list[Ids] | None = None
        if plan is None:
            ended = np.isin(chosen, stop_ids)
        else:
            blocks, ended = plan.follow(decoder, active)
            for row, ids in zip(active.tolist(), blocks, strict=True):
                tokens[row] += ids
                logprobs[row] += [0.0] * len(ids)
        finished[active[ended]] = True
        active, branch, chosen = active[~ended], branch[~ended], chosen[~ended]
        if not len(active) or index + 1 == settings.max_new_tokens:
            break
        if blocks is not None:
            kept = [ids for ids, over in zip(blocks, ended, strict=True) if not over]
            logits, branch = advance_blocks(decoder, active, branch, chosen, kept)
            continue
        pair, branch = np.unique(branch * (1 << 32) + chosen, return_inverse=True)
        logits = decoder.advance(DecodeBatch(pair >> 32, pair & 0xFFFFFFFF, active, branch))
    sampled = [
        SampledRow(
            token_ids=tuple(tokens[row]),
            logprobs=np.asarray(logprobs[row], dtype=np.float32),
            entropy=float(entropies[row] / max(len(tokens[row]), 1)),
            finished=bool(finished[row]),
        )
        for row in range(rows)
    ]
    return sampled if plan is None else plan.complete(sampled)


def check_finite_entropy(entropy: NDArray[np.floating], model_name: str) -> None:
    """Raises NonFiniteError, naming the model: one logit that is NaN or infinite makes an entropy NaN."""
    if not np.isfinite(entropy).all():
        raise NonFiniteError(
            f"The logits of {model_name} are not finite in an answer: its weights are damaged or too large, "
            "or its dtype is too narrow. Use an earlier checkpoint, or policy.dtype=float32."
        )


def advance_blocks(
    decoder: Decoder,
    rows: NDArray[np.int64],
    branch: NDArray[np.int64],
    token: NDArray[np.int64],
    given: Sequence[Ids],
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """One decode step in which each of the A rows appends its token and what is given behind it.

    Returns the logits [B, V] and the branch [A] of each row in them.
    """
    groups: dict[tuple[int, Ids], list[int]] = {}
    for index, (parent, first, more) in enumerate(zip(branch.tolist(), token.tolist(), given, strict=True)):
        groups.setdefault((parent, (first, *more)), []).append(index)
    joined = np.empty_like(branch)
    for number, indices in enumerate(groups.values()):
        joined[indices] = number
    parents, blocks = np.array([parent for parent, _ in groups]), [block for _, block in groups]
    branches = DecodeBatch(parents, np.array([block[0] for block in blocks]), rows, joined)
    if all(len(block) == 1 for block in blocks):
        return decoder.advance(branches), joined
    assert isinstance(decoder, BlockDecoder)  # the plan asked it
    return decoder.advance_blocks(branches, blocks), joined


def sample_tokens(
    logits: torch.Tensor,
    branch: NDArray[np.int64],
    uniform: NDArray[np.float64],
    settings: SamplingSettings,
    allowed: AnswerTokens,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Token, its log-prob and the entropy of each row [rows], from the logits [B, V] of its branch.

    Ids without a token are never drawn. As with ``top_p``, log-probs and entropy are those of the full
    distribution, which is what the trainer computes.
    """
    scaled = logits.float()
    if settings.temperature > 0:
        scaled = scaled / settings.temperature
    logprobs = torch.log_softmax(scaled, dim=-1)
    probs = logprobs.exp()
    entropy = -(probs * logprobs.clamp(min=-1e4)).sum(-1)
    rows = torch.as_tensor(branch, device=logits.device)
    if settings.temperature == 0:
        chosen = with_token(logprobs, allowed, -torch.inf).argmax(-1)[rows]
    else:
        weights = with_token(probs, allowed, 0.0)
        weights = top_p_filter(weights, settings.top_p) if settings.top_p < 1 else weights
        chosen = draw(weights, branch, uniform)
    picked = logprobs[rows, chosen]
    return chosen.cpu().numpy(), picked.float().cpu().numpy(), entropy[rows].cpu().numpy()


def with_token(values: torch.Tensor, allowed: AnswerTokens, fill: float) -> torch.Tensor:
    """``values`` [B, V] of the ids that have a token, [B, limit]; holes between them get ``fill``."""
    values = values[:, : allowed.limit]
    if not allowed.holes:
        return values
    return values.index_fill(1, torch.tensor(allowed.holes, device=values.device), fill)


def draw(weights: torch.Tensor, branch: NDArray[np.int64], uniform: NDArray[np.float64]) -> torch.Tensor:
    """An index drawn with each of ``uniform`` [rows] from the weights [B, V] of the row's branch.

    The float64 running sums are shared by the rows of a branch, and made for a few branches at a time.
    """
    branches, size = weights.shape
    counts = np.bincount(branch, minlength=branches)
    order = np.argsort(branch, kind="stable")
    column = np.empty_like(branch)  # index of each row among those of its branch
    column[order] = np.arange(len(branch)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.zeros((branches, counts.max()))
    table[branch, column] = uniform
    targets = torch.as_tensor(table, device=weights.device)
    chosen = torch.empty(targets.shape, dtype=torch.int64, device=weights.device)
    at_once = max(1, DRAW_BYTES // (8 * size))
    for start in range(0, branches, at_once):
        part = slice(start, start + at_once)
        cumulative = weights[part].double().cumsum(-1)
        chosen[part] = torch.searchsorted(cumulative, targets[part] * cumulative[:, -1:], right=True)
    return chosen.clamp(max=size - 1)[torch.as_tensor(branch), torch.as_tensor(column)]


def top_p_filter(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero the tail of each row of [N, V] outside the smallest set of tokens with mass ``top_p``.

    Of a large vocabulary only the ``TOP_P_CANDIDATES`` largest are ordered, unless they have less than that
    mass.
    """
    if probs.shape[-1] > 4 * TOP_P_CANDIDATES:
        ordered, index = probs.topk(TOP_P_CANDIDATES, dim=-1)
        if not bool((ordered.sum(-1) < top_p).any()):
            return _nucleus(probs, ordered, index, top_p)
    return sorted_top_p_filter(probs, top_p)


def sorted_top_p_filter(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """As ``top_p_filter``, always by sorting: it never waits for the device."""
    ordered, index = probs.sort(dim=-1, descending=True)
    return _nucleus(probs, ordered, index, top_p)


def _nucleus(probs: torch.Tensor, ordered: torch.Tensor, index: torch.Tensor, top_p: float) -> torch.Tensor:
    keep = ordered.cumsum(-1) - ordered < top_p
    return torch.zeros_like(probs).scatter(-1, index, ordered * keep)
