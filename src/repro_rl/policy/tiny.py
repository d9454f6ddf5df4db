"""The embedded model: a small Qwen3 with its own word tokenizer, as an ordinary Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repro_rl.errors import ConfigError

SPECIALS = ("<pad>", "<eos>", "<unk>")


@dataclass(slots=True, frozen=True)
class TinySize:
    """Shape of the embedded model."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    ffn: int = 256
    positions: int = 1024


def build_tiny(folder: Path, words: Iterable[str], size: TinySize = TinySize(), seed: int = 0) -> Path:
    """Write a freshly initialised Qwen3 and a word-level tokenizer to ``folder``.

    The vocabulary is the sorted set of ``words`` after three special tokens; a word outside it becomes
    ``<unk>``. Anything that loads a Hugging Face causal LM loads the result. Raises ConfigError for a word
    with white space.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from repro_rl.policy.transformers_policy import quiet

    quiet()
    vocabulary = [*SPECIALS, *sorted(set(words) - set(SPECIALS))]
    for word in vocabulary:
        if not word or word.split() != [word]:
            raise ConfigError(f"The tiny tokenizer takes words without white space; got {word!r}.")
    if size.hidden % size.heads or size.heads % size.kv_heads:
        raise ConfigError(
            f"Tiny model: hidden ({size.hidden}) must be a multiple of heads ({size.heads}), "
            f"and heads of kv_heads ({size.kv_heads})."
        )
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=size.positions,
    )
    config = Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=size.hidden,
        intermediate_size=size.ffn,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.hidden // size.heads,
        max_position_embeddings=size.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.05,
    )
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    finally:
        torch.random.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
