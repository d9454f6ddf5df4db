"""How many positions a model computes in one way: beyond, a log-prob may depend on how a batch is laid out.

The trial of ``policy.exactness`` is short and does not get there, so the end is read from the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Names of a limit of positions. Not every architecture has one; MPT's has a name of its own.
LIMITS = ("max_position_embeddings", "max_seq_len")
OTHER_LIMITS = ("max_sequence_length", "n_positions", "n_ctx", "seq_length")  # in code of a model's folder
LAST_LIMITS = ("block_size",)  # likewise, where no other is there: it also is the size of attention's blocks
# Settings of attention that selects single tokens: no more than so many, so that a shorter row is not cut.
# Scores are often equal (a ReLU makes them 0), and then the layout of the batch decides. Doge without a mask
# selects tokens that come later. Pooled scores of whole blocks (DeepSeek-V4, MiniMax-M3) are exact.
SELECTED = ("index_topk", "indexer_budget", "keep_window_size")
POOLED = "compress_rates"  # where it is set, index_topk counts compressed entries
# Families that count from behind the padding token's id, so that the first positions are never used.
BEHIND_PADDING = (
    *("roberta", "roberta-prelayernorm", "camembert", "data2vec-text"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
)


@dataclass(slots=True, frozen=True)
class PositionLimit:
    """The positions that a model may be used with."""

    tokens: int
    reason: str = ""  # why they are fewer than the configuration names; empty where they are not


def position_limit(language: Any) -> PositionLimit | None:
    """Of a model of text with this configuration of transformers; None where there is no limit.

    LongRoPE (arXiv 2402.13753; Phi-3) has two sets of frequencies. A whole pass takes the long one where any
    row of it is longer than the original limit. A token's log-prob would then depend on the rows beside it,
    and on what comes after it. For attention that selects tokens see ``SELECTED``.
    """
    named = _named(language)
    unused = (language.pad_token_id or 0) + 1 if language.model_type in BEHIND_PADDING else 0
    limits = [PositionLimit(named - unused)] if named else []
    limits += [limit for limit in (_longrope(language), _selection(language)) if limit is not None]
    return min(limits, key=lambda limit: limit.tokens, default=None)


def _named(language: Any) -> int | None:
    """How many positions a configuration names; None for one without a limit, which some write as -1.

    In code of a folder every name may be the one that it reads, so the least holds.
    """

    def limits(names: tuple[str, ...]) -> list[int]:
        values = [getattr(language, name, None) for name in names]
        return [int(value) for value in values if isinstance(value, (int, float)) and value > 0]

    if type(language).__module__.startswith("transformers."):
        return next(iter(limits(LIMITS)), None)
    return min(limits((*LIMITS, *OTHER_LIMITS)) or limits(LAST_LIMITS), default=None)


def _longrope(language: Any) -> PositionLimit | None:
    parameters = getattr(language, "rope_parameters", None) or getattr(language, "rope_scaling", None) or {}
    for rope in (parameters, *(part for part in parameters.values() if isinstance(part, dict))):
        if rope.get("rope_type", rope.get("type")) == "longrope":
            original = rope.get("original_max_position_embeddings")
            original = original or getattr(language, "original_max_position_embeddings", None)
            if original:
                return PositionLimit(int(original), "LongRoPE changes its frequencies beyond")
    return None


def _selection(language: Any) -> PositionLimit | None:
    for name in SELECTED:
        tokens = getattr(language, name, None)
        if isinstance(tokens, int) and tokens > 0 and not getattr(language, POOLED, None):
            kind = language.model_type
            return PositionLimit(tokens, f"attention of {kind} selects {name}={tokens:,} tokens beyond")
    return None
