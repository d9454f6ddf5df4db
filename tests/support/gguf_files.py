"""GGUF files of random models, written as llama.cpp's converter writes them (names from the gguf package)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

CORPUS = [
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 1 and a drawer 12.",
    "go to drawer 1 open drawer 1 take soap bar 1 from drawer 1 progress action step <think> it's 3.50!",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PERMUTED = {"llama", "smollm3"}  # architectures whose q and k rows llama.cpp reorders
NORMAL, UNKNOWN, CONTROL_TYPE, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def byte_level_vocabulary(size: int = 300) -> tuple[list[str], list[str]]:
    """Tokens and merges of a small byte-level BPE: 256 bytes, then what a corpus merges most often."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import BPE

    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(core.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [" ".join(pair) for pair in model["merges"]]


def byte_level_keys(*, pre: str = "qwen2", padding: int = 0, size: int = 300) -> dict[str, Any]:
    """Metadata of a byte-level tokenizer with control tokens behind its vocabulary, like Qwen's."""
    tokens, merges = byte_level_vocabulary(size)
    begin = len(tokens)
    filled = begin + len(CONTROL) + 1
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [
            *tokens,
            *CONTROL,
            "<tool>",
            *(f"[PAD{number}]" for number in range(filled, filled + padding)),
        ],
        "tokenizer.ggml.token_type": [NORMAL] * begin
        + [CONTROL_TYPE] * len(CONTROL)
        + [USER_DEFINED]
        + [UNUSED] * padding,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": begin,
        "tokenizer.ggml.eos_token_id": begin + 2,
        "tokenizer.ggml.padding_token_id": begin,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def sentencepiece_keys() -> dict[str, Any]:
    """Metadata of a SentencePiece vocabulary: bytes, letters and a few words, the earlier the better."""
    words = ["he", "ll", "hell", "hello", "\u2581w", "or", "ld", "\u2581wor", "\u2581world", "\u2581hello"]
    words += ["\u2581\u2581", "\u2581he", "\u2581hell"]
    letters = ["\u2581", *"helowrdxz1234567890"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, *letters]
    kinds = [UNKNOWN, CONTROL_TYPE, CONTROL_TYPE] + [BYTE] * 256 + [NORMAL] * (len(words) + len(letters))
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(words) + len(letters))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def random_model(architecture: str, vocabulary: int, *, tied: bool = False, **changes: Any) -> Any:
    """A model of random weights whose rows fill whole quantisation blocks."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "head_dim": 32 if architecture in ("qwen3", "llama") else 16,
        "initializer_range": 0.2,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings | changes)).eval()
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide a mistake
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def write_gguf(
    path: Path,
    model: Any,
    architecture: str,
    tokenizer: dict[str, Any],
    *,
    quantised: str = "F32",
    extra: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
    repeat_output: bool | str = False,
) -> Path:
    """Write ``model`` as a GGUF file; matrices in the block format ``quantised``, vectors in float32.

    ``extra``: more keys, or other values of those written; None leaves a key out. ``repeat_output``: a tied
    model's embedding is written a second time, as its output matrix (in the block format that it names).
    ``tensors``: more of them, in float32.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, (extra or {}).get("general.architecture", architecture))
    add_keys(writer, config, architecture, tokenizer | (extra or {}))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    kind = gguf.GGMLQuantizationType[quantised]
    for name, tensor in model.state_dict().items():
        base, _, suffix = name.rpartition(".")
        if name == "lm_head.weight" and config.tie_word_embeddings and not repeat_output:
            continue
        file_name = f"{names.get_name(base)}.{suffix}"
        values = permuted(architecture, file_name, config, tensor.float().numpy())
        own = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        if name == "lm_head.weight" and isinstance(repeat_output, str):
            own = gguf.GGMLQuantizationType[repeat_output]
        writer.add_tensor(file_name, gguf.quantize(values, own), raw_dtype=own)
    for file_name, values in (tensors or {}).items():
        writer.add_tensor(file_name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def permuted(architecture: str, name: str, config: Any, values: Any) -> Any:
    """The rows of q and k as llama.cpp orders them: the halves of each head interleaved."""
    if architecture not in PERMUTED or not (".attn_q." in name or ".attn_k." in name):
        return values
    heads = config.num_key_value_heads if ".attn_k." in name else config.num_attention_heads
    parts = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(parts.swapaxes(1, 2).reshape(values.shape))


def add_keys(writer: Any, config: Any, architecture: str, more: dict[str, Any]) -> None:
    """The metadata of a model; ``more`` of them, or other values, None for none."""
    for key, value in (_model_keys(config, architecture) | more).items():
        if value is not None and key != "general.architecture":
            _add(writer, key, value)


def _model_keys(config: Any, architecture: str) -> dict[str, Any]:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        f"{architecture}.{name}": value
        for name, value in {
            "block_count": config.num_hidden_layers,
            "context_length": config.max_position_embeddings,
            "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
            "attention.key_length": head,
            "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        }.items()
    }


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
