"""A model as dimensions: parameters, FLOPs and bytes without its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from repro_rl.config import RunConfig
from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.policy.qwen_shapes import SHAPES, find_shape


@dataclass(frozen=True, slots=True)
class Network:
    """A Qwen-like decoder: grouped-query attention, gated feed-forward, root-mean-square norms."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int  # width of one attention head
    ffn: int
    vocab: int
    tied: bool
    norms: bool  # queries and keys are normalised (Qwen3); else their projections have biases (Qwen2.5)

    @property
    def q(self) -> int:
        return self.heads * self.head

    @property
    def kv(self) -> int:
        return self.kv_heads * self.head

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrix products."""
        return self.hidden * (2 * self.q + 2 * self.kv + 3 * self.ffn)

    @property
    def linear_names(self) -> dict[str, tuple[int, int]]:
        """(Input, output) widths of one layer's linear maps."""
        h = self.hidden
        return {
            "q_proj": (h, self.q), "k_proj": (h, self.kv), "v_proj": (h, self.kv), "o_proj": (self.q, h),
            "gate_proj": (h, self.ffn), "up_proj": (h, self.ffn), "down_proj": (self.ffn, h),
        }  # fmt: skip

    @property
    def parameters(self) -> int:
        small = 2 * self.hidden + (2 * self.head if self.norms else self.q + 2 * self.kv)
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (self.layer_weights + small) + self.hidden

    def adapter(self, rank: int, targets: str | list[str]) -> int:
        """Parameters of a low-rank adapter on every layer's ``targets``."""
        chosen = [
            sizes for name, sizes in self.linear_names.items() if targets == "all-linear" or name in targets
        ]
        return rank * self.layers * sum(a + b for a, b in chosen)

    def forward_flops(self, tokens: float, context: float, logits: float) -> float:
        """Of ``tokens`` new positions, each attending to ``context`` others on average, and ``logits`` output
        positions. A multiply-add counts two."""
        attention = 4 * self.layers * self.q * context
        return tokens * (2 * self.layers * self.layer_weights + attention) + logits * 2 * (
            self.hidden * self.vocab
        )

    def cache_bytes(self, element: int) -> int:
        """Keys and values of one position."""
        return 2 * self.layers * self.kv * element

    def activation_bytes(self, weights: int, mixed: bool) -> float:
        """Kept for the backward pass by one layer, for each position.

        Counted on transformers' Qwen2 and Qwen3 with torch's saved-tensor hooks (a test counts again);
        ``weights``: bytes of one; ``mixed``: float32 weights under bfloat16 autocast.
        """
        h, q, kv, f = self.hidden, self.q, self.kv, self.ffn
        if self.norms:
            small = 8 * self.heads + 4 * self.kv_heads
            if mixed:
                return 26 * h + 10 * q + 10 * kv + 8 * f + small
            if weights == 2:
                return 16 * h + 10 * q + 10 * kv + 8 * f + small
            return 24 * h + 16 * q + 16 * kv + 16 * f + small
        small = 4 * self.heads
        if mixed:
            return 30 * h + 4 * kv + 8 * f + small
        return (20 * h + 4 * kv + 8 * f if weights == 2 else 32 * h + 8 * kv + 16 * f) + small


def network_of(config: RunConfig, vocabulary: int | None = None) -> Network:
    """The dimensions of ``policy.model`` (of ``train.init`` where a folder is given there).

    ``vocabulary``: of the tiny model. Raises ConfigError for a hub name whose shape is not known.
    """
    model = config.policy.model
    init = config.train.init
    if init and Path(init).exists():
        from repro_rl.policy.lora import base_of, is_adapter
        from repro_rl.train.checkpoint import find_model

        folder = find_model(init)
        while is_adapter(folder):
            folder = Path(base_of(folder))
        return read_network(folder)
    if model == "tiny":
        tiny = config.policy.tiny
        return Network(
            "tiny", tiny.hidden, tiny.layers, tiny.heads, tiny.kv_heads, tiny.hidden // tiny.heads, tiny.ffn,
            vocabulary or 100, True, True,
        )  # fmt: skip
    if Path(model).exists():
        return read_network(Path(model))
    shape = find_shape(model)
    if shape is None:
        raise ConfigError(
            f"The shape of {model!r} is not known here{did_you_mean(model, SHAPES)} Give a folder with its "
            "config.json as policy.model."
        )
    return Network(
        model, shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.head, shape.ffn, shape.vocab,
        shape.tied, shape.family == "qwen3",
    )  # fmt: skip


def read_network(folder: Path) -> Network:
    """From a model folder's config.json. Raises ConfigError where it lacks a dimension."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text())
        heads, hidden = int(data["num_attention_heads"]), int(data["hidden_size"])
        return Network(
            str(folder),
            hidden,
            int(data["num_hidden_layers"]),
            heads,
            int(data.get("num_key_value_heads") or heads),
            int(data.get("head_dim") or hidden // heads),
            int(data["intermediate_size"]),
            int(data["vocab_size"]),
            bool(data.get("tie_word_embeddings", False)),
            data.get("model_type") != "qwen2",
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} does not describe a decoder: {error!r}") from error
