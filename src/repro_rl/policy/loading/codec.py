"""The codec of a model: read from its folder or hub name, without the weights.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro_rl.policy.gguf import model_folder
from repro_rl.policy.loading.lora import is_adapter
from repro_rl.policy.loading.source import find_source
from repro_rl.policy.loading.stop_tokens import load_generation_config, stop_ids
from repro_rl.policy.model.positions import position_limit
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
        generation = load_generation_config(source.model, local_only=local_only)
    return codec_of(tokenizer, config.get_text_config(), generation, chat=chat, thinking=thinking)


def codec_of(
    tokenizer: Any, config: Any, generation_config: Any, *, chat: ChatSwitch = "auto", thinking: bool = False
) -> TextCodec:
    """The codec of a model with these configurations of transformers; ``generation_config`` may be None."""
    language = config.get_text_config(decoder=True)  # of a composite model, else the configuration itself
    limit = position_limit(language)
    vocabulary = getattr(language, "vocab_size", None)
    return TextCodec(
        tokenizer,
        chat=chat,
        thinking=thinking,
        eos_ids=model_eos_ids(config, generation_config) | model_eos_ids(language),
        positions=limit.tokens if limit else None,
        vocabulary=int(vocabulary) if vocabulary else None,
    )


def model_eos_ids(config: Any, generation_config: Any = None) -> set[int]:
    """The stop tokens that a model's configuration and generation configuration name, perhaps none.

    Raises CheckpointError for what is no token's id.
    """
    ids: set[int] = set()
    for source, file in ((config, "config.json"), (generation_config, "generation_config.json")):
        where = f"{getattr(source, 'name_or_path', '') or 'the model'}/{file}"
        ids |= stop_ids(getattr(source, "eos_token_id", None), where)  # both are optional
    return ids
