"""The embedded model: a small Qwen3 with its own word tokenizer, as an ordinary Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from repro_rl.config import TinySection
from repro_rl.errors import ConfigError
from repro_rl.policy.loading.hub import hide_progress_bars

SPECIALS = ("<pad>", "<eos>", "<unk>")


def build_tiny(
    folder: str | Path, words: Iterable[str], size: TinySection | None = None, seed: int = 0
) -> Path:
    """Write a freshly initialised Qwen3 and a word-level tokenizer to ``folder``.

    The vocabulary is the sorted set of ``words`` after three special tokens; a word outside it becomes
    ``<unk>``. ``size``: None takes the defaults of ``policy.tiny``. Anything that loads a Hugging Face causal
    LM loads the result. Raises ConfigError for a word with white space, and for heads that do not divide.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    hide_progress_bars()
    size = size or TinySection()
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
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
