"""A model as dimensions: parameters, FLOPs and bytes without its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from repro_rl.config import PolicySection
from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.files import read_json, read_yaml
from repro_rl.policy.gguf import is_gguf, read_config
from repro_rl.policy.loading.hub import is_hub_name, is_path, no_such_model
from repro_rl.policy.loading.lora import base_of, is_adapter
from repro_rl.policy.loading.qwen_shapes import Shape, find_shape, shapes
from repro_rl.run.model_paths import start_model

QK_NORMS = ("qwen3", "gemma3_text")  # model types whose queries and keys are normalised


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder like Llama and Qwen: grouped queries, gated feed-forward, root-mean-square norms."""

    name: str
    hidden: int
    layers: int
    heads: int  # of the queries
    kv_heads: int
    head_dim: int  # width of one attention head
    ffn: int  # inner width of the feed-forward part
    vocab: int
    tied: bool  # the output weights are the embeddings
    qk_norms: bool  # queries and keys are normalised (Qwen3)
    biases: bool = False  # of the projections of queries, keys and values (Qwen2.5)

    @property
    def query_width(self) -> int:
        """All query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """All key heads together, or all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrix products."""
        return self.hidden * (2 * self.query_width + 2 * self.kv_width + 3 * self.ffn)

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """(Input, output) widths of one layer's linear maps, by transformers' names."""
        h, q, kv, f = self.hidden, self.query_width, self.kv_width, self.ffn
        return {
            "q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h),
            "gate_proj": (h, f), "up_proj": (h, f), "down_proj": (f, h),
        }  # fmt: skip

    @property
    def parameters(self) -> int:
        """All weights, embeddings included."""
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norms else 0)
        vectors = norms + (self.query_width + 2 * self.kv_width if self.biases else 0)  # of one layer
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (self.layer_weights + vectors) + self.hidden

    def adapter_parameters(self, rank: int, targets: str | Sequence[str]) -> int:
        """Parameters of a low-rank adapter on every layer's ``targets`` (names, or "all-linear")."""
        adapted = [
            widths for name, widths in self.projections.items() if targets == "all-linear" or name in targets
        ]
        return rank * self.layers * sum(inputs + outputs for inputs, outputs in adapted)

    def forward_flops(self, tokens: float, context: float, outputs: float) -> float:
        """FLOPs of one forward pass; a multiply-add counts two.

        ``tokens``: new positions. ``context``: positions that each attends to, on average. ``outputs``:
        positions whose logits are computed.
        """
        attention = 4 * self.layers * self.query_width * context
        return tokens * (2 * self.layers * self.layer_weights + attention) + outputs * 2 * (
            self.hidden * self.vocab
        )

    def cache_bytes(self, element: int) -> int:
        """Keys and values of one position; ``element``: bytes of a number."""
        return 2 * self.layers * self.kv_width * element

    def activation_bytes(self, weight_bytes: int, autocast: bool) -> float:
        """Bytes that one layer keeps for the backward pass, for each position.

        Counted on transformers' Llama, Qwen2 and Qwen3 with torch's saved-tensor hooks (a test counts again).
        ``autocast``: float32 weights under bfloat16 autocast.
        """
        h, q, kv, f = self.hidden, self.query_width, self.kv_width, self.ffn
        if self.qk_norms:
            statistics = 8 * self.heads + 4 * self.kv_heads
            if autocast:
                return 26 * h + 10 * q + 10 * kv + 8 * f + statistics
            if weight_bytes == 2:
                return 16 * h + 10 * q + 10 * kv + 8 * f + statistics
            return 24 * h + 16 * q + 16 * kv + 16 * f + statistics
        statistics = 4 * self.heads
        if autocast:
            return 30 * h + 4 * kv + 8 * f + statistics
        return (20 * h + 4 * kv + 8 * f if weight_bytes == 2 else 32 * h + 8 * kv + 16 * f) + statistics


def model_shape(policy: PolicySection, init: str | None = None, vocabulary: int | None = None) -> ModelShape:
    """The dimensions of the model that training begins with; an adapter's are those of its base model.

    ``init``: the setting train.init; ``policy.model`` where it is unset, or does not exist yet.
    ``vocabulary``: size of the tiny model's. Raises ConfigError for a hub name whose shape is neither known
    nor in the local cache, and for a model that is no such decoder. Raises CheckpointError for a path that
    is not there and an adapter without a base model.
    """
    model = policy.model
    if init and (Path(init).exists() or is_hub_name(init)):
        model = str(start_model(init))
    while is_adapter(model):  # whose base may be an adapter itself
        model = base_of(Path(model))
    if model == "tiny":
        tiny = policy.tiny
        return ModelShape(
            "tiny", tiny.hidden, tiny.layers, tiny.heads, tiny.kv_heads, tiny.hidden // tiny.heads, tiny.ffn,
            vocabulary or 100, True, True,
        )  # fmt: skip
    if Path(model).exists():
        return read_shape(Path(model))
    shape = find_shape(model) or other_shapes().get(model.removesuffix("-Instruct")) or _downloaded(model)
    if shape is None and is_path(model):
        raise no_such_model(model)
    if shape is None:
        raise ConfigError(
            f"The shape of {model!r} is not known here{did_you_mean(model, {**shapes(), **other_shapes()})} "
            "Give a folder with its config.json, or a GGUF file, as policy.model."
        )
    return _from_config(model, shape)


@cache
def other_shapes() -> dict[str, Shape]:
    """The shapes in ``shapes.yaml`` by hub name: small models that are no Qwen."""
    return read_yaml(Path(__file__).with_name("shapes.yaml"), dict[str, Shape])


def _downloaded(model: str) -> dict[str, Any] | None:
    """The configuration of a hub name that was loaded before; None where the local cache has none."""
    from transformers import AutoConfig

    try:
        return dict(AutoConfig.from_pretrained(model, local_files_only=True).to_dict())
    except Exception:  # not here: transformers and its hub library raise their own
        return None


def read_shape(folder: Path) -> ModelShape:
    """From a model folder's config.json, or from a GGUF file, which is not converted.

    Raises ConfigError where a dimension is missing, DataError for a file that cannot be read, or a GGUF file
    that is not supported.
    """
    if is_gguf(folder):
        return _from_config(str(folder), read_config(folder).to_dict())
    path = folder / "config.json"
    return _from_config(str(folder), read_json(path, "configuration of a model"), source=str(path))


def _from_config(name: str, config: Mapping[str, Any], source: str | None = None) -> ModelShape:
    """From the content of a config.json. Raises ConfigError, naming ``source``, where a dimension is missing.

    ``source``: where the content is from; None: ``name``.
    """
    try:
        return _dimensions(name, config)
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        missing = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else repr(error)
        raise ConfigError(
            f"{source or name} does not describe a decoder like Llama or Qwen: {missing}. 'repro-rl plan' "
            "counts such decoders only; give one of them as policy.model."
        ) from error


def _dimensions(name: str, config: Mapping[str, Any]) -> ModelShape:
    """Raises what a missing or wrong dimension raises."""
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    return ModelShape(
        name,
        hidden,
        int(config["num_hidden_layers"]),
        heads,
        int(config.get("num_key_value_heads") or heads),
        int(config.get("head_dim") or hidden // heads),
        int(config["intermediate_size"]),
        int(config["vocab_size"]),
        bool(config.get("tie_word_embeddings", False)),
        config.get("model_type") in QK_NORMS,
        config.get("model_type") == "qwen2" or bool(config.get("attention_bias")),
    )
