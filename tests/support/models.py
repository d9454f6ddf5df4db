"""Small models and what tests of policies share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.config import PolicySection, TinySection
from repro_rl.policy import TransformersPolicy
from repro_rl.random_streams import name_key

TINY = TinySection(hidden=32, layers=2, heads=2, kv_heads=1, ffn=64, positions=256)


def load_cpu(folder: str | Path, *, training: bool = False, **settings: Any) -> TransformersPolicy:
    """A policy on the CPU; ``settings``: those of the section ``policy``."""
    return TransformersPolicy.load(folder, PolicySection(device="cpu", **settings), training=training)


def keys_of(count: int, *names: object) -> NDArray[np.uint64]:
    """Keys of random streams, the same for the same names."""
    return np.array([name_key(*(names or ("keys",)), i) for i in range(count)], dtype=np.uint64)


def perturb(policy: TransformersPolicy, seed: int, scale: float = 0.2) -> None:
    """Change the weights as an optimizer does, only more."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights by name."""
    return {name: parameter.detach().clone() for name, parameter in model.state_dict().items()}


def equal_weights(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def forward_logprobs(policy: TransformersPolicy, ids: Any, temperature: float = 1.0) -> NDArray[np.float32]:
    """[L, V] by one plain unpadded forward pass of the model's own."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return torch.log_softmax(logits.float() / temperature, dim=-1).numpy()


def network(
    kind: Literal["qwen3", "qwen2", "llama", "mistral", "smollm3"] = "qwen3",
    seed: int = 0,
    vocabulary: int = 23,
    **more: Any,
) -> Any:
    """Three layers, two query heads to a key head, logits far from flat."""
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
        SmolLM3Config,
        SmolLM3ForCausalLM,
    )

    classes = {
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
        "smollm3": (SmolLM3Config, SmolLM3ForCausalLM),
    }
    config_class, model_class = classes[kind]
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "head_dim": 8,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    torch.manual_seed(seed)
    model = model_class(config_class(**settings | more)).eval()
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide a mistake
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {  # what the packed engine serves
    "qwen3": ("qwen3", {}),
    "qwen3 untied": ("qwen3", {"tie_word_embeddings": False}),
    "qwen3 biases": ("qwen3", {"attention_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen2 yarn": ("qwen2", {"rope_parameters": YARN}),
    "llama": ("llama", {}),
    "llama untied, all heads": ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "llama linear rope": ("llama", {"rope_parameters": LINEAR}),
    "llama three heads to a key head": (
        "llama",
        {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 24},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1], "use_sliding_window": False}),
}


def family(name: str, **more: Any) -> Any:
    """A small network of one of ``FAMILIES``."""
    kind, settings = FAMILIES[name]
    return network(kind, **(settings | more))
