"""What may be done with a model of transformers while its answers stay exact.

A batch of unequal prompts needs padding, and a KV cache. Which padding a model tolerates depends on what its
layers take for the distance between two tokens. Those are positions that they are given (rotary and learned
embeddings; ALiBi of BLOOM), or slots of the cache (sliding windows, ALiBi of MPT). A recurrent state
tolerates none.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from repro_rl.policy.model.adapter import base_model

LIBRARY = "transformers."  # modules whose conventions are known
# Models whose layers keep their state to themselves, for one batch alone, or in a cache class of their own.
OWN_STATE = ("recurrent_gemma", "minimax", "xlstm")
OWN_MASKS = ("sdpa", "eager")  # implementations of attention that take a 4-D mask


_NO_CACHE: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # a model -> why it is sampled without a cache


class Batching(Enum):
    """How prompts of unequal length are sampled together. The value completes "sampled ..."."""

    PADDED = "in batches that are padded behind what their prompts share"
    LEFT_PADDED = "in batches that are padded on the left"
    EQUAL = "in batches of equal length, without padding"
    UNCACHED = "without a KV cache, a pass over the whole sequence for every token (slow)"


@dataclass(slots=True, frozen=True)
class Capabilities:
    """What is known of a model from its configuration and its code."""

    batching: Batching
    reason: str  # why batching is not PADDED; empty where it is
    # Slots that the narrowest window of a LEFT_PADDED model sees. A batch with no more may be PADDED. None:
    # there is no window; distance is counted in slots for another reason, or batching is another one.
    window: int | None
    cache_argument: str  # of the forward pass: "past_key_values" or "cache_params"; empty where there is none
    positions: bool  # the forward pass takes position_ids
    chat_cache: bool  # ``decoding.sessions.CachedSession`` may keep the KV cache of conversations

    def batching_of(self, slots: int) -> Batching:
        """How a batch is laid out that needs ``slots`` of the cache a row, new tokens included."""
        return Batching.PADDED if self.window is not None and slots <= self.window else self.batching


def capabilities_of(model: Any) -> Capabilities:
    """What may be done with ``model``. One of unknown code is treated as transformers' ``generate`` does."""
    model = base_model(model)
    arguments = inspect.signature(model.forward).parameters
    cache_argument = next((name for name in ("past_key_values", "cache_params") if name in arguments), "")
    positions = "position_ids" in arguments
    batching, reason, window = Batching.UNCACHED, "its state is not in a cache of transformers", None
    if model in _NO_CACHE:
        reason = _NO_CACHE[model]
    elif cache_argument and model.config.model_type not in OWN_STATE:
        batching, reason, window = _batching(model, positions)
    return Capabilities(
        batching=batching,
        reason=reason,
        window=window,
        cache_argument=cache_argument,
        positions=positions,
        chat_cache=batching is Batching.PADDED and not _has_alibi(model.config) and _takes_masks(model),
    )


def keeps_cache(model: Any) -> bool:
    """Whether ``CachedSession`` serves this model: full attention in every layer, and masks of our own."""
    return capabilities_of(model).chat_cache


def do_without_cache(model: Any, reason: str) -> None:
    """From now on ``capabilities_of`` this model are those of one without a cache, for the ``reason``."""
    _NO_CACHE[base_model(model)] = reason


def do_as(model: Any, tried: Any) -> None:
    """Do without a cache for ``model`` where ``tried``, a model of the same architecture, does."""
    reason = _NO_CACHE.get(base_model(tried))
    if reason is not None:
        do_without_cache(model, reason)


def _batching(model: Any, positions: bool) -> tuple[Batching, str, int | None]:
    """Batching, reason and window of a model with a cache."""
    layers = DynamicCache(config=model.config).layers
    other = sorted({type(layer).__name__ for layer in layers} - {_FULL, _WINDOW})
    if other:
        return Batching.EQUAL, f"its cache has layers of other kinds ({', '.join(other)})", None
    if not type(model).__module__.startswith(LIBRARY):
        return Batching.LEFT_PADDED, "its code is not part of transformers", None
    if not positions and not _has_alibi(model.config):
        return Batching.LEFT_PADDED, "it is not given positions, so it counts slots of the cache", None
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    if _has_local_layers(model.config):
        windows.append(model.config.window_size)
    if windows:
        window = int(min(windows))
        return Batching.LEFT_PADDED, f"its attention has a window of {window:,} tokens", window
    return Batching.PADDED, "", None


_FULL, _WINDOW = DynamicLayer.__name__, DynamicSlidingWindowLayer.__name__


def _has_alibi(config: Any) -> bool:
    """ALiBi that counts the tokens of a 2-D mask, so it needs one. Falcon has a switch for it."""
    return config.model_type == "bloom" or bool(getattr(config, "alibi", False))


def _has_local_layers(config: Any) -> bool:
    """GPT-Neo's windows, which no cache layer knows of."""
    return "local" in (getattr(config, "attention_layers", None) or ())


def _takes_masks(model: Any) -> bool:
    """Whether a 4-D mask reaches the layers as it is: the model leaves its masks to transformers."""
    implementation = model.config._attn_implementation
    return implementation in OWN_MASKS and hasattr(sys.modules[type(model).__module__], "create_causal_mask")
