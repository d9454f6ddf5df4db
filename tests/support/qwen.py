"""The Qwen tokenizers over a small vocabulary, their chat templates, and the real ranks."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from repro_rl.policy.loading.qwen_shapes import Shape
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.tokens.qwen_tokenizer import build_tokenizer

# "abc" is made of "ab" and "c"; "the" of "th" and "e"; ranks of the merges follow the 256 bytes.
LONGER = (b"ab", b"abc", b"th", b"the", b" the")
END_OF_TEXT, TURN_END = 261, 263  # ids of <|endoftext|> and <|im_end|>


def small_ranks() -> dict[bytes, int]:
    tokens = [*(bytes([b]) for b in range(256)), *LONGER]
    return {token: rank for rank, token in enumerate(tokens)}


@cache
def small_tokenizer(family: str) -> Any:
    """Shared: a test that changes a tokenizer builds its own."""
    return build_tokenizer(small_ranks(), family)


def small_shape(family: str, **dimensions: Any) -> Shape:
    """A small model of the family: one layer, two heads; ``dimensions`` replace its own."""
    shape: Shape = {"model_type": "qwen3" if family == "qwen3" else "qwen2"}
    shape |= {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    shape |= {"intermediate_size": 64, "vocab_size": 320, "tie_word_embeddings": True}
    shape |= {"max_position_embeddings": 16_384}
    if family == "qwen3":
        shape["head_dim"] = 16
    return shape | dimensions


def small_codec(family: str, **more: Any) -> TextCodec:
    return TextCodec(small_tokenizer(family), **more)


def plain(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids by transformers' own way."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def chat_text(tokenizer: Any, *turns: dict[str, str], generate: bool = True, **more: Any) -> str:
    return str(
        tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=generate, **more)
    )


def real_ranks() -> Path:
    """Qwen's own ranks file; the test is skipped where it is not."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("REPRO_RL_SHARED_DATA", beside)) / "qwen" / "qwen.tiktoken"
    if not path.is_file():
        pytest.skip("Qwen's BPE ranks are not here; set REPRO_RL_SHARED_DATA to the folder that has them")
    return path
