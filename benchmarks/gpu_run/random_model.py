"""Policies with random weights of a given shape, and prompts of given lengths for them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from repro_rl.policy import TextCodec, TransformersPolicy
from repro_rl.policy.base import AnswerTokens, Keys
from repro_rl.policy.loading.precision import prepare_gpu
from repro_rl.policy.loading.qwen_shapes import Shape, model_config
from repro_rl.random_streams import name_key
from repro_rl.types import Ids

WORDS = 200  # of the tokenizer; ids beyond are sampled, but never written
FIRST_WORD = 4  # id of the first word


def random_policy(
    shape: Shape,
    device: str,
    dtype: torch.dtype,
    *,
    mixed: bool = False,
    static_cache: Literal["auto", "on", "off"] = "on",
    pass_tokens: int = 65_536,
) -> TransformersPolicy:
    """A model of ``shape``, its weights drawn on the device."""
    prepare_gpu(device)
    config = model_config(shape)
    config.bos_token_id = config.pad_token_id = None  # those of Qwen's tokenizer, which is not used
    config.eos_token_id = 1
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return TransformersPolicy(
        model.to(device).eval(),
        codec(int(shape["vocab_size"])),
        max_batch_tokens=pass_tokens,
        mixed=mixed,
        packed=False,
        static_cache=static_cache,
    )


def codec(vocabulary: int) -> TextCodec:
    """One word, one token; no chat template.

    Answers are sampled from the whole vocabulary. The stop token is as unlikely as any other.
    """
    words = {f"w{i}": FIRST_WORD + i for i in range(WORDS)}
    core = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2, "<end>": 3, **words}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    text = TextCodec(tokenizer, vocabulary=vocabulary)
    text.answer_tokens = AnswerTokens(text.eos_ids, limit=vocabulary, size=vocabulary)
    return text


def prompts(rows: int, tokens: int, *names: object) -> list[Ids]:
    """``rows`` different prompts of exactly ``tokens`` tokens."""
    rng = np.random.default_rng(name_key("prompts", *names))
    ids = rng.integers(FIRST_WORD, FIRST_WORD + WORDS, size=(rows, tokens))
    return [tuple(row.tolist()) for row in ids]


def turn(tokens: int, *names: object) -> str:
    """A user turn of ``tokens`` words."""
    return " ".join(f"w{i - FIRST_WORD}" for i in prompts(1, tokens, *names)[0])


def keys(rows: int, *names: object) -> Keys:
    """Keys of random streams."""
    return np.array([name_key("keys", *names, row) for row in range(rows)], dtype=np.uint64)


def weight_bytes(model: Any, item: int) -> int:
    """Bytes that one decode step reads of the weights: all but the embedding, which is looked up."""
    config = model.config
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    return item * (sum(p.numel() for p in model.parameters()) - looked_up)
