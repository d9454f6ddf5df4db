"""Published shapes of the Qwen checkpoints: parameters, memory and dry runs without their weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's dimensions, as its config.json names them."""

    family: str  # "qwen2.5" (biases on queries, keys, values) or "qwen3" (norms on queries and keys)
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int = 151_936
    head_dim: int | None = None  # None: hidden / heads
    tied: bool = True  # output weights are the embeddings
    positions: int = 32_768

    @property
    def head(self) -> int:
        return self.head_dim or self.hidden // self.heads


def _qwen25(
    hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int = 151_936, tied: bool = True
) -> Shape:
    return Shape("qwen2.5", hidden, layers, heads, kv_heads, ffn, vocab=vocab, tied=tied)


def _qwen3(hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, tied: bool = True) -> Shape:
    return Shape("qwen3", hidden, layers, heads, kv_heads, ffn, head_dim=128, tied=tied, positions=40_960)


SHAPES: dict[str, Shape] = {  # hidden, layers, heads, kv heads, ffn
    "Qwen/Qwen2.5-0.5B": _qwen25(896, 24, 14, 2, 4864),
    "Qwen/Qwen2.5-1.5B": _qwen25(1536, 28, 12, 2, 8960),
    "Qwen/Qwen2.5-3B": _qwen25(2048, 36, 16, 2, 11008),
    "Qwen/Qwen2.5-7B": _qwen25(3584, 28, 28, 4, 18944, vocab=152_064, tied=False),
    "Qwen/Qwen2.5-14B": _qwen25(5120, 48, 40, 8, 13824, vocab=152_064, tied=False),
    "Qwen/Qwen3-0.6B": _qwen3(1024, 28, 16, 8, 3072),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 28, 16, 8, 6144),
    "Qwen/Qwen3-4B": _qwen3(2560, 36, 32, 8, 9728),
    "Qwen/Qwen3-8B": _qwen3(4096, 36, 32, 8, 12288, tied=False),
    "Qwen/Qwen3-14B": _qwen3(5120, 40, 40, 8, 17408, tied=False),
}


def find_shape(model: str) -> Shape | None:
    """The shape of a hub name ("-Instruct" and "-Base" have the plain one's); None when it is not listed."""
    return SHAPES.get(model.removesuffix("-Instruct").removesuffix("-Base"))


def model_config(shape: Shape) -> Any:
    """The transformers configuration of a shape."""
    from transformers import Qwen2Config, Qwen3Config

    common: dict[str, Any] = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": shape.tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
        "pad_token_id": 151_643,
    }
    if shape.family == "qwen3":
        return Qwen3Config(**common, head_dim=shape.head)
    return Qwen2Config(**common)


def build_untrained(folder: Path, model: str, ranks_file: str | Path, seed: int = 0) -> Path:
    """A folder with the shape and tokenizer of ``model`` and random bfloat16 weights, to rehearse a run with.

    It costs what the checkpoint costs and knows nothing. Raises ConfigError for a model that is not listed.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from repro_rl.files import write_folder
    from repro_rl.policy.qwen_tokenizer import build_tokenizer, read_ranks
    from repro_rl.policy.transformers_policy import quiet

    shape = find_shape(model)
    if shape is None:
        raise ConfigError(f"The shape of {model!r} is not known{did_you_mean(model, SHAPES)}")
    quiet()
    tokenizer = build_tokenizer(read_ranks(ranks_file), shape.family)
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(model_config(shape), dtype=torch.bfloat16)
    finally:
        torch.random.set_rng_state(state)
    network.generation_config = GenerationConfig(eos_token_id=[151_645, 151_643], pad_token_id=151_643)

    def fill(temporary: Path) -> None:
        network.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)

    write_folder(folder, fill)
    return folder
