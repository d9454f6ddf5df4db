"""From llama.cpp's names to those of transformers: configuration and weights of the supported architectures.

Everything in a file must be understood. Without one of its settings or tensors, the model would compute
something else than its author trained. It would generate fluent text all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from repro_rl.errors import DataError, some
from repro_rl.files import TABLE, read_yaml
from repro_rl.policy.gguf.header import INSTEAD, GgufHeader
from repro_rl.policy.gguf.tokenizer import special_id, stop_ids

Array = np.ndarray[Any, Any]
LAYER = re.compile(r"^blk\.(\d+)\.")
ROTARY_FACTORS = "rope_freqs.weight"  # Llama 3's change of the rotary frequencies, as numbers
DEFAULT_ROTARY_BASE = 10_000.0  # llama.cpp's, where the file names none
# Keys of an architecture that are read, or change nothing with these values.
READ = (
    "rope.freq_base",
    "rope.dimension_count",
    "attention.key_length",
    "attention.value_length",
    "vocab_size",
)
SCALING = ("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length")
HARMLESS = {
    "rope.scaling.finetuned": (True, False),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "rope.scale_linear": (1.0,),
}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture of ``architectures.yaml``."""

    __pydantic_config__ = TABLE
    model_type: str  # transformers' name
    fixed: dict[str, Any] = field(default_factory=dict)  # settings of config.json that no key names
    tensors: dict[str, str] = field(
        default_factory=dict
    )  # file's name -> transformers' name, "{}": the layer
    permuted: tuple[str, ...] = ()  # parts of tensor names whose rows llama.cpp has reordered


@dataclass(frozen=True, slots=True)
class _Table:
    """What ``architectures.yaml`` holds."""

    __pydantic_config__ = TABLE
    settings: dict[str, str]  # of every architecture: transformers' name -> key of the file
    tensors: dict[str, str]  # of every architecture, as ``Architecture.tensors``
    architectures: dict[str, Architecture]  # by llama.cpp's name


@cache
def table() -> _Table:
    """What ``architectures.yaml`` holds."""
    return read_yaml(Path(__file__).with_suffix(".yaml"), _Table)


def architecture_of(header: GgufHeader) -> Architecture:
    """The architecture of a file. Raises DataError naming the file for one that is not supported."""
    known = table().architectures
    found = known.get(header.architecture)
    if found is None:
        raise DataError(
            f"its architecture is {header.architecture!r}; supported are {', '.join(known)}. {INSTEAD}",
            file=header.path,
        )
    return found


def config_of(header: GgufHeader, rotary_factors: Array | None) -> Any:
    """The transformers configuration of a file, with ``tie_word_embeddings`` where it has no output matrix.

    ``rotary_factors``: values of the tensor ``rope_freqs.weight``, None without it. Raises DataError naming
    the file for settings that are missing, unknown, or not supported.
    """
    from transformers import AutoConfig

    architecture = architecture_of(header)
    _check_keys(header)
    settings = {name: _number(header, key) for name, key in table().settings.items()}
    head = _head_size(header, settings)
    stops = stop_ids(header)
    config = AutoConfig.for_model(
        architecture.model_type,
        **settings,
        **architecture.fixed,
        vocab_size=_embedding_rows(header),
        head_dim=head,
        rope_parameters=_rotary(header, head, rotary_factors),
        tie_word_embeddings="output.weight" not in header.tensors,
        bos_token_id=special_id(header, "bos"),
        eos_token_id=stops[0] if stops else None,
        pad_token_id=special_id(header, "padding"),
    )
    return config


def target_of(header: GgufHeader, name: str) -> str:
    """Transformers' name of a tensor in the file. Raises DataError for one that the architecture lacks."""
    layer = LAYER.match(name)
    generic = name if layer is None else f"blk.{{}}.{name[layer.end() :]}"
    target = (table().tensors | architecture_of(header).tensors).get(generic)
    if target is None:
        raise DataError(
            f"it holds a tensor {name}, which {header.architecture} models here do not have. {INSTEAD}",
            file=header.path,
        )
    return target if layer is None else target.format(layer[1])


def unpermuted(header: GgufHeader, name: str, config: Any, weights: Array) -> Array:
    """``weights`` with their rows in transformers' order.

    llama.cpp rotates neighbours, transformers the two halves of a head; its converter interleaves the halves.
    """
    if not any(f".{part}." in name for part in architecture_of(header).permuted):
        return weights
    heads = config.num_key_value_heads if ".attn_k." in name else config.num_attention_heads
    rest = weights.shape[1:]
    return weights.reshape(heads, -1, 2, *rest).swapaxes(1, 2).reshape(weights.shape)


def _check_keys(header: GgufHeader) -> None:
    """Raises DataError for a setting of the architecture that is not understood."""
    prefix = f"{header.architecture}."
    known = {*table().settings.values(), *READ, *SCALING}
    for key, value in header.metadata.items():
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or name in known or value in HARMLESS.get(name, ()):
            continue
        raise DataError(
            f"its setting {key} = {value} is not known, and may change what the model computes. {INSTEAD}",
            file=header.path,
        )


def _number(header: GgufHeader, key: str) -> int | float:
    """One number of the architecture; a list of equal ones, one a layer, counts as one."""
    value = header.key(key)
    if value is None and key == "attention.head_count_kv":
        value = header.key("attention.head_count")
    if isinstance(value, list) and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise DataError(
            f"its setting {header.architecture}.{key} is {value}, where a positive number is needed",
            file=header.path,
        )
    return short(value)


def short(value: int | float) -> int | float:
    """A number that was written in float32, without the digits that this added: 1e-05."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _embedding_rows(header: GgufHeader) -> int:
    entry = header.tensors.get("token_embd.weight")
    if entry is None:
        raise DataError("it holds no tensor token_embd.weight", file=header.path)
    tokens = len(header.metadata.get("tokenizer.ggml.tokens") or ())
    if tokens > entry.shape[0]:
        raise DataError(
            f"its vocabulary has {tokens:,} tokens, its embedding {entry.shape[0]:,} rows", file=header.path
        )
    return entry.shape[0]


def _head_size(header: GgufHeader, settings: dict[str, int | float]) -> int:
    """Width of an attention head. Raises DataError where only part of it is rotated, or widths differ."""
    plain = int(settings["hidden_size"]) // int(settings["num_attention_heads"])
    size = int(header.key("attention.key_length") or plain)
    for name in ("attention.value_length", "rope.dimension_count"):
        if header.key(name) not in (None, size):
            raise DataError(
                f"its {name} is {header.key(name)} where heads are {size} wide; that is not supported",
                file=header.path,
            )
    return size


def _rotary(header: GgufHeader, head: int, factors: Array | None) -> dict[str, Any]:
    """``rope_parameters``: base, and how it is stretched for longer texts."""
    base = short(float(header.key("rope.freq_base") or DEFAULT_ROTARY_BASE))
    kind, factor = header.key("rope.scaling.type"), header.key("rope.scaling.factor")
    original = header.key("rope.scaling.original_context_length")
    parameters: dict[str, Any] = {"rope_theta": base}
    if factors is not None and kind in (None, "none"):
        return parameters | _llama3(header, float(base), head, factors)
    if factors is None and kind in (None, "none"):
        return parameters | {"rope_type": "default"}
    if factors is None and factor and kind == "linear":
        return parameters | {"rope_type": "linear", "factor": short(factor)}
    if factors is None and factor and original and kind == "yarn":
        yarn = {"factor": short(factor), "original_max_position_embeddings": original}
        return parameters | {"rope_type": "yarn"} | yarn
    raise DataError(
        f"its positions are stretched in a way that is not supported (rope.scaling.type {kind!r}, factor "
        f"{factor}). {INSTEAD}",
        file=header.path,
    )


def _llama3(header: GgufHeader, base: float, head: int, factors: Array) -> dict[str, Any]:
    """Llama 3's parameters that give these factors; the file holds only what comes of them."""
    factor = float(short(float(factors.max())))
    expected = llama3_factors(base, head, factor)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-3):
        raise DataError(f"its {ROTARY_FACTORS} are not those of Llama 3. {INSTEAD}", file=header.path)
    return {"rope_type": "llama3", "factor": factor, **LLAMA3}


def llama3_factors(base: float, head: int, factor: float) -> Array:
    """By what Llama 3 divides the rotary frequencies of a head, shape [head / 2].

    Wavelengths up to 8192 / 4 tokens stay, those from 8192 on are stretched by ``factor``. Those between
    change smoothly (Llama 3.1's configuration, rope type "llama3").
    """
    frequency = base ** -(np.arange(0, head, 2) / head)
    turns = LLAMA3["original_max_position_embeddings"] * frequency / (2 * math.pi)
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1.0 / ((1.0 - kept) / factor + kept)


def check_complete(header: GgufHeader, found: Sequence[str], expected: Sequence[str]) -> None:
    """Raises DataError when the model needs a tensor that the file lacks."""
    missing = sorted(set(expected) - set(found))
    if missing:
        raise DataError(f"it lacks the weights of {some(missing, 1)}; it is incomplete", file=header.path)
