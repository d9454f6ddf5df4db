"""Which models decode over a static KV cache, and a policy's decoders: idle, or in use by a session."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from repro_rl.errors import ConfigError
from repro_rl.policy.decoding.static.decoder import StaticDecoder, StaticSettings
from repro_rl.policy.model.capabilities import keeps_cache
from repro_rl.policy.model.cast_weights import CastLinears
from repro_rl.policy.tokens.codec import TextCodec

StaticSwitch = Literal["auto", "on", "off"]

KEPT_SHARE = 0.3  # of a GPU's memory that caches and weight copies may keep during an update
CACHE_SHARE = 0.5  # of a GPU's free memory that the KV cache of one batch may take


def use_static(switch: StaticSwitch, model: Any) -> bool:
    """Whether ``model`` decodes over a static cache.

    "auto": on a GPU, where every layer has full attention that takes our masks and the weights are plain
    tensors. Raises ConfigError for "on" where that is not so.
    """
    if switch == "off":
        return False
    parameters = list(model.parameters())
    plain = all(type(p) is torch.nn.Parameter for p in parameters)  # neither sharded nor quantised
    possible = plain and keeps_cache(model)
    if switch == "on" and not possible:
        raise ConfigError(
            f"policy.static_cache is on, but {type(model).__name__} cannot decode that way: it needs full "
            "attention in every layer, policy.attention sdpa or eager, and weights that are neither sharded "
            "nor quantised. Use policy.static_cache=auto."
        )
    return possible and (switch == "on" or parameters[0].device.type == "cuda")


@dataclass(slots=True)
class StaticDecoders:
    """The decoders of one policy. A decoder has one user at a time, and is kept for the next."""

    codec: TextCodec
    mixed: bool  # forward passes run under bfloat16 autocast
    pass_tokens: int  # cells of one pass over prompts
    cache_tokens: int  # of one batch's KV cache
    _model: Any = None  # whose decoders these are
    _casts: CastLinears | None = None
    _stale: bool = False  # the copies in ``_casts`` are of older weights
    _idle: list[StaticDecoder] = field(default_factory=list)
    _shape: tuple[int, int] = (0, 0)  # of the largest cache so far: growing would drop a decoder's graphs

    def acquire(self, model: Any) -> StaticDecoder:
        """An empty decoder of ``model``, for its present weights."""
        if model is not self._model:
            self.clear()
            self._model = model
        if self.mixed and self._casts is None:
            self._casts = CastLinears(model)
        elif self._casts is not None and self._stale:
            self._casts.refresh()
        self._stale = False
        if self._idle:
            return self._idle.pop()
        settings = StaticSettings(
            self.codec.answer_tokens, self.codec.pad_id, self.mixed, self.pass_tokens, self._shape
        )
        return StaticDecoder(model, settings, self._casts)

    def release(self, decoder: StaticDecoder) -> None:
        """Keep a decoder that is no longer used for the next one who asks."""
        decoder.clear()
        self._shape = max(self._shape, decoder.shape, key=math.prod)
        if decoder.model is self._model and decoder.casts is self._casts:
            self._idle.append(decoder)

    def weights_changed(self) -> None:
        """The model has other weights at the same addresses."""
        self._stale = True

    def clear(self) -> None:
        """Free all memory."""
        self._idle.clear()
        self._casts = self._model = None
        self._shape = (0, 0)

    def free_for_update(self, share: float = KEPT_SHARE) -> None:
        """Free the memory on a GPU, unless it is at most this share of it: then graphs need no new capture.

        Caches, copies of weights and the scratch memory of graphs count.
        """
        held = sum(decoder.bytes() + decoder.runner.bytes() for decoder in self._idle)
        held += self._casts.bytes() if self._casts is not None else 0
        if self._idle and self._idle[0].device.type == "cuda":
            _, total = torch.cuda.mem_get_info(self._idle[0].device)
            if held > share * total:
                self._idle.clear()
                self._casts = None  # the shape stays: the next decoder begins with it
                torch.cuda.empty_cache()

    def batch_cells(self, model: Any) -> int:
        """Cells (rows x width, as allocated) of the largest batch that is decoded together."""
        device = next(model.parameters()).device
        if device.type != "cuda":
            return self.cache_tokens
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free += sum(decoder.bytes() for decoder in self._idle)  # the batch will lie in one of them
        fits = int(CACHE_SHARE * free / token_bytes(model, self.mixed))
        return max(self.pass_tokens, min(self.cache_tokens, fits))


def token_bytes(model: Any, mixed: bool = False) -> int:
    """Memory of one token's keys and values in all layers."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    item = 2 if mixed else model.dtype.itemsize
    return int(2 * config.num_hidden_layers * heads * size * item)
