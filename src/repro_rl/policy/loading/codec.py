"""The codec of a model: read from its folder or hub name, without the weights.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro_rl.policy.gguf import model_folder
from repro_rl.policy.loading.hub import files_of
from repro_rl.policy.loading.lora import is_adapter
from repro_rl.policy.loading.source import find_source
from repro_rl.policy.tokens.codec import ChatSwitch, TextCodec


def load_codec(
    path: str | Path,
    *,
    chat: ChatSwitch = "auto",
    thinking: bool = False,
    local_only: bool | None = None,
    trust_remote_code: bool = False,
) -> TextCodec:
    """The codec of a Hugging Face folder or hub name, without its weights.

    An adapter's folder gives its own tokenizer, where it has one, with the limits of the model it belongs on.
    A folder with a tokenizer alone gives one without limits. A GGUF file is converted first (see
    ``policy.gguf``). ``local_only``: of a hub name, look only into the local cache; None: where the hub
    cannot be reached. Raises CheckpointError when there is nothing to load.
    """
    from transformers import GenerationConfig

    from repro_rl.policy.loading.pretrained import load_model_config, load_tokenizer

    path = model_folder(path)
    folder = Path(path)
    bare = folder.is_dir() and not is_adapter(folder) and not (folder / "config.json").exists()
    if bare:  # a tokenizer alone
        return TextCodec(
            load_tokenizer(path, trust_remote_code=trust_remote_code), chat=chat, thinking=thinking
        )
    source = find_source(path)
    with source.explained():
        tokenizer = load_tokenizer(
            source.tokenizer, trust_remote_code=trust_remote_code, local_only=local_only
        )
        config = load_model_config(source.model, trust_remote_code=trust_remote_code, local_only=local_only)
    try:
        generation = GenerationConfig.from_pretrained(files_of(source.model, local_only=local_only))
    except OSError:  # a model folder need not have one
        generation = None
    return codec_of(tokenizer, config.get_text_config(), generation, chat=chat, thinking=thinking)


def codec_of(
    tokenizer: Any, config: Any, generation_config: Any, *, chat: ChatSwitch = "auto", thinking: bool = False
) -> TextCodec:
    """The codec of a model with these configurations of transformers; ``generation_config`` may be None."""
    language = config.get_text_config(decoder=True)  # of a composite model, else the configuration itself
    # Not every architecture has a limit; MPT's has a name of its own.
    limit = getattr(language, "max_position_embeddings", None) or getattr(language, "max_seq_len", None)
    vocabulary = getattr(language, "vocab_size", None)
    return TextCodec(
        tokenizer,
        chat=chat,
        thinking=thinking,
        eos_ids=model_eos_ids(config, generation_config) | model_eos_ids(language),
        positions=_exact_positions(language, int(limit)) if limit else None,
        vocabulary=int(vocabulary) if vocabulary else None,
    )


def _exact_positions(language: Any, limit: int) -> int:
    """How many positions have one set of rotary frequencies, at most ``limit``.

    LongRoPE (arXiv 2402.13753; Phi-3) has two sets. transformers takes the long one for a whole pass where
    any row of it is longer than the original limit. A token's log-prob would then depend on the rows beside
    it, and on what comes after it.
    """
    parameters = getattr(language, "rope_parameters", None) or getattr(language, "rope_scaling", None) or {}
    for rope in (parameters, *(part for part in parameters.values() if isinstance(part, dict))):
        if rope.get("rope_type", rope.get("type")) == "longrope":
            original = rope.get("original_max_position_embeddings")
            original = original or getattr(language, "original_max_position_embeddings", None)
            limit = min(limit, int(original or limit))
    return limit


def model_eos_ids(config: Any, generation_config: Any = None) -> set[int]:
    """The stop tokens that a model's configuration and generation configuration name, perhaps none."""
    ids: set[int] = set()
    for source in (config, generation_config):
        value = getattr(source, "eos_token_id", None)  # both are optional
        if value is not None:
            ids.update(value if isinstance(value, (list, tuple)) else [value])
    return ids
