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
from repro_rl.policy.tokens.codec import ChatSwitch, TextCodec

# Names of a limit of positions. Not every architecture has one; MPT's has a name of its own.
LIMITS = ("max_position_embeddings", "max_seq_len")
OTHER_LIMITS = ("max_sequence_length", "n_positions", "n_ctx", "seq_length")  # in code of a model's folder
LAST_LIMITS = ("block_size",)  # likewise, where no other is there: it also is the size of attention's blocks


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
    limit = _position_limit(language)
    vocabulary = getattr(language, "vocab_size", None)
    return TextCodec(
        tokenizer,
        chat=chat,
        thinking=thinking,
        eos_ids=model_eos_ids(config, generation_config) | model_eos_ids(language),
        positions=_exact_positions(language, limit) if limit else None,
        vocabulary=int(vocabulary) if vocabulary else None,
    )


def _position_limit(language: Any) -> int | None:
    """How many positions a configuration names; None for one without a limit, which some write as -1.

    In code of a folder every name may be the one that it reads, so the least holds.
    """

    def limits(names: tuple[str, ...]) -> list[int]:
        values = [getattr(language, name, None) for name in names]
        return [int(value) for value in values if isinstance(value, (int, float)) and value > 0]

    if type(language).__module__.startswith("transformers."):
        return next(iter(limits(LIMITS)), None)
    return min(limits((*LIMITS, *OTHER_LIMITS)) or limits(LAST_LIMITS), default=None)


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
    """The stop tokens that a model's configuration and generation configuration name, perhaps none.

    Raises CheckpointError for what is no token's id.
    """
    ids: set[int] = set()
    for source, file in ((config, "config.json"), (generation_config, "generation_config.json")):
        where = f"{getattr(source, 'name_or_path', '') or 'the model'}/{file}"
        ids |= stop_ids(getattr(source, "eos_token_id", None), where)  # both are optional
    return ids
