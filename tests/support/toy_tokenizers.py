"""Small tokenizers of the kinds that language models have, by how they write numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from repro_rl.policy import TextCodec

TEXTS = [
    f"<progress>\nstep {t}: {value}\nstep {t + 1}: {100 - value}\n</progress>"
    for t in range(1, 20)
    for value in range(101)
]


def _trained(pre_tokenizer: Any, decoder: Any) -> TextCodec:
    core: Any = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizer, decoder
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXTS, trainer)
    return TextCodec(
        PreTrainedTokenizerFast(
            tokenizer_object=core,
            pad_token="<pad>",
            eos_token="<eos>",
            clean_up_tokenization_spaces=False,
        )
    )


def digit_by_digit() -> TextCodec:
    """As Qwen and SmolLM2: every digit is a token, and so is the space before a number."""
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return _trained(pre_tokenizers.Sequence(parts), decoders.ByteLevel())


def three_digits() -> TextCodec:
    """As Llama 3: up to three digits are a token, without the space before them."""
    split = pre_tokenizers.Split(Regex(r"\p{N}{1,3}|[^\s\p{N}]+|\s+"), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _trained(pre_tokenizers.Sequence([split, byte_level]), decoders.ByteLevel())


def with_space() -> TextCodec:
    """As GPT-2: a number is a token together with the space before it."""
    return _trained(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


def metaspace() -> TextCodec:
    """As SentencePiece: words begin with a mark for the space before them, digits stand alone."""
    parts = [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True)]
    return _trained(pre_tokenizers.Sequence(parts), decoders.Metaspace())


KINDS: dict[str, Callable[[], TextCodec]] = {
    "digit by digit": digit_by_digit,
    "three digits": three_digits,
    "with space": with_space,
    "metaspace": metaspace,
}
