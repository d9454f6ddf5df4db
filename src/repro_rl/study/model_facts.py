"""What a run would use of a model, in words: tokens, positions, attention, engine, precision, memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import DynamicCache

from repro_rl.policy import TextCodec, TransformersPolicy
from repro_rl.policy.decoding.wide.compiled_pass import find_kernels
from repro_rl.policy.model.adapter import base_model
from repro_rl.policy.model.capabilities import Batching, Capabilities, capabilities_of
from repro_rl.policy.model.positions import position_limit
from repro_rl.types import Ids

MOMENTS = {"adamw": 2.0, "adamw8bit": 0.5}  # float32 numbers that the optimizer keeps for a weight
SHORT, LONG = 4, 8  # tokens of the two passes that the size of the KV cache is measured on


def model_facts(policy: TransformersPolicy, optimizer: str) -> dict[str, str]:
    """Name -> what will be used, for a policy that was loaded for training with ``optimizer``."""
    codec, model = policy.codec, policy.model
    return {
        "model": _architecture(model),
        "stop tokens": _tokens(codec, sorted(codec.eos_ids)),
        "prompts begin with": _beginning(codec),
        "chat template": _template(codec),
        "an answer ends with": _tokens(codec, [codec.end_id]),
        "positions": _positions(policy),
        "attention": _attention(policy),
        "sampling": _sampling(policy),
        "chat context": _chat(policy),
        "precision": _precision(policy),
        "memory": _memory(policy, optimizer),
    }


def training_bytes(policy: TransformersPolicy, optimizer: str) -> int:
    """Of gradients and optimizer, which training needs beside the weights; activations come on top."""
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    return int((1 + MOMENTS[optimizer]) * gradients)


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on ``device``; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            values = dict(line.split(":", 1) for line in lines)
        return int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return None


def cache_bytes(policy: TransformersPolicy) -> tuple[int, int] | None:
    """Bytes of a KV cache: of a token, and of what does not grow; None for a model without a cache."""
    capabilities = capabilities_of(policy.model)
    ids = policy.codec.plain_ids("a b c d e f g h") or (0,)
    if not capabilities.cache_argument or capabilities.batching is Batching.UNCACHED:
        return None
    short, long = (_measured_cache(policy, capabilities, (ids * LONG)[:size]) for size in (SHORT, LONG))
    token = (long - short) // (LONG - SHORT)
    return token, short - token * SHORT


@torch.no_grad()
def _measured_cache(policy: TransformersPolicy, capabilities: Capabilities, ids: Ids) -> int:
    cache = DynamicCache(config=policy.model.config)
    inputs = {capabilities.cache_argument: cache, "input_ids": torch.tensor([ids], device=policy.device)}
    if capabilities.positions:  # as in sampling: some models cannot count them with such a cache
        inputs["position_ids"] = torch.arange(len(ids), device=policy.device)[None]
    with policy.precision():
        policy.model(**inputs, use_cache=True, logits_to_keep=1)
    return sum(map(_bytes, (value for layer in cache.layers for value in vars(layer).values())))


def _bytes(value: Any) -> int:
    """Of the tensors in an attribute of a cache layer: one, or a dictionary of them."""
    if isinstance(value, torch.Tensor) and value.dim():
        return value.numel() * value.element_size()
    return sum(map(_bytes, value.values())) if isinstance(value, dict) else 0


def _architecture(model: Any) -> str:
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    part = "all trained" if trained == total else f"{trained:,} of them trained (an adapter)"
    return f"{type(base_model(model)).__name__}, {total:,} parameters, {part}"


def _tokens(codec: TextCodec, ids: Iterable[int]) -> str:
    return ", ".join(f"{codec.tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in ids)


def _beginning(codec: TextCodec) -> str:
    """The tokens before a prompt's own text, such as <s> and the header of a chat template."""
    return repr(str(codec.tokenizer.decode(list(codec.encode("x"))[:8])))


def _template(codec: TextCodec) -> str:
    template = codec.template
    if template is not None:
        system, tag = template.form.system, template.other_thought
        more = "" if system is None else f"; it demands a system message, which is {system!r}"
        more += "; it takes contents as lists of parts alone" if template.form.parts else ""
        more += f"; it opens a thought with {tag}, which no format takes" if tag else ""
        return f"the tokenizer's own, policy.thinking={str(codec.thinking).lower()}{more}"
    if codec.tokenizer.chat_template:
        return "not used (policy.chat=off)"
    return "none: prompts are plain text"


def _positions(policy: TransformersPolicy) -> str:
    positions = policy.codec.positions
    if positions is None:
        return "not limited by the model"
    limit = position_limit(base_model(policy.model).config.get_text_config(decoder=True))
    return f"{positions:,}" + (f"; {limit.reason}" if limit is not None and limit.reason else "")


def _attention(policy: TransformersPolicy) -> str:
    implementation = base_model(policy.model).config._attn_implementation
    capabilities = capabilities_of(policy.model)
    return f"{implementation}; {capabilities.reason}" if capabilities.reason else f"{implementation}, full"


def _sampling(policy: TransformersPolicy) -> str:
    if policy.uses_static:
        graphs = ", decode steps as CUDA graphs" if policy.device.type == "cuda" else ""
        return f"transformers, all rows together over a static KV cache{graphs}"
    if policy.uses_packed:
        return f"packed engine: what prompts share is computed once, nothing is padded; {_kernels(policy)}"
    return f"transformers, {capabilities_of(policy.model).batching.value}"


def _kernels(policy: TransformersPolicy) -> str:
    if not policy.uses_wide:
        return "decode steps by torch (a narrow model)"
    found = find_kernels(policy.kernels, policy.model)
    return f"decode steps by torch: {found.reason}" if found.kernels is None else "compiled decode steps"


def _chat(policy: TransformersPolicy) -> str:
    if capabilities_of(policy.model).chat_cache:
        return "the KV cache is kept between turns"
    return "every turn computes the whole conversation again (the KV cache cannot be kept exactly)"


def _precision(policy: TransformersPolicy) -> str:
    weights = str(policy.model.dtype).removeprefix("torch.")
    passes = ", passes under bfloat16 autocast" if policy.mixed else ""
    return f"{weights}{passes}: {policy.origin.dtype_reason}"


def _memory(policy: TransformersPolicy, optimizer: str) -> str:
    weights = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    parts = [f"weights {_size(weights)}"]
    cache = cache_bytes(policy)
    if cache is not None:
        token, fixed = cache
        constant = f" and {_size(fixed)} whatever the length" if fixed > 0 else ""
        parts.append(f"KV cache {_size(1000 * token)} for 1,000 tokens{constant}")
    more = training_bytes(policy, optimizer)
    parts.append(f"training {_size(weights + more)} and activations ('repro-rl plan' says how much)")
    return ", ".join(parts)


def _size(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} bytes"
